"use strict";
// The page begins here.

function startOpening(content) {
  const methods = new Set(content.runs.flatMap((run) => run.methods.filter(isMerged).map((m) => m.name)));
  const suites = new Set(content.runs.map((run) => `${run.suite} on ${run.backbone}`));
  document.getElementById("summary").textContent = [
    counted(content.runs.length, "run"),
    counted(content.settings.length, "setting"),
    counted(methods.size, "method"),
    [...suites].join(", "),
  ].join(" · ");
  const marked = (kind) => content.runs.filter((run) => run[kind].length).length;
  const notes = [];
  if (marked("stamps")) {
    const text = `${marked("stamps")} of ${counted(content.runs.length, "run")} depart from the label-free protocol`;
    notes.push(notice("stamps", text));
  }
  if (marked("warnings")) {
    const text = `${marked("warnings")} of ${counted(content.runs.length, "run")} gave warnings; the tables and runs below say which`;
    notes.push(notice("warnings", text));
  }
  document.getElementById("notices").append(...notes);
}

const content = carried("content");
startTheme();
startOpening(content);
startOverview(content);
startSettingTables(content);
startCompare(content);
startFigures(carried("figure-data"));
startRuns(content);
