"use strict";
// The page begins here.

function startOpening(content) {
  const methods = new Set(
    content.runs.flatMap((run) => run.methods.filter(isMerged).map((m) => m.name)),
  );
  const suites = new Set(content.runs.map((run) => `${run.suite} on ${run.backbone}`));
  document.getElementById("summary").textContent = [
    counted(content.runs.length, "run"),
    counted(content.settings.length, "setting"),
    counted(methods.size, "method"),
    [...suites].join(", "),
  ].join(" · ");
  const told = { stamps: "depart from the label-free protocol", warnings: "gave warnings" };
  const notes = Object.entries(told).flatMap(([kind, what]) => {
    const marked = content.runs.filter((run) => run[kind].length).length;
    const text = `${marked} of ${counted(content.runs.length, "run")} ${what}; see below which.`;
    return marked ? [notice(kind, [text])] : [];
  });
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
