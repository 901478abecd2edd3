"use strict";
// A page that is complete without scripts begins here.

startTheme();
startCopy();
