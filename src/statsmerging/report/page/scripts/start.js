"use strict";
// The page begins here.

const content = carried("content");
startTheme();
startOverview(content);
startSettingTables(content);
startCompare(content);
startFigures(carried("figure-data"));
startRuns(content);
startCopy();
