"use strict";
// What every part of the page uses: elements, numbers, values of the config. Text always goes in as
// text nodes, so that no name of a run, task or method is ever read as HTML.

/** An element; attributes that begin with "on" are listeners, those that are null or false absent. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(key, value);
  }
  made.append(...children.flat(2).filter((child) => child !== null));
  return made;
}

/** The JSON that the page carries in a script element. */
function carried(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// Ties go to the even digit, as in Python, so that a number is the same in all tables.
const TENTHS = new Intl.NumberFormat("en", {
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
  roundingMode: "halfEven",
});

/** A fraction in percent, "71.3"; nothing for null. */
function percent(fraction) {
  return fraction === null || fraction === undefined ? "" : TENTHS.format(100 * fraction);
}

/** A difference of two fractions in points, "+1.2", "−0.4", "0.0". */
function points(difference) {
  const text = TENTHS.format(Math.abs(100 * difference));
  if (text === "0.0") return text;
  return (difference > 0 ? "+" : "−") + text;
}

/** A value of the config as the command line takes it: [mean,kind], null, true. */
function valueText(value) {
  if (value === undefined) return "";
  if (Array.isArray(value)) return `[${value.map(valueText).join(",")}]`;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** "1 run", "2 runs". */
function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** A label above its control. */
function field(label, control) {
  return element("label", { class: "field" }, element("span", {}, label), control);
}

/** A choice among [value, text] pairs. */
function choice(options, attributes = {}) {
  return element(
    "select",
    attributes,
    options.map(([value, text]) => element("option", { value }, text)),
  );
}

/** Where the details of a run are on this page. */
function runLink(run, ...children) {
  const href = `#${encodeURIComponent(runId(run))}`;
  return element("a", { href, title: run.name }, children.length ? children : run.name);
}

function runId(run) {
  return `run=${run.name}`;
}

/** The settings in which a run differs from others, for a line of text: "layer_wise · hard". */
function settingText(content, run) {
  const values = content.keys.filter((key) => key in run.setting && !key.startsWith("method."));
  return [
    ...values.map((key) => `${shortKey(key)} ${valueText(run.setting[key])}`),
    `seed ${run.seed}`,
  ].join(" · ");
}

/** What tells a run from others of its setting: "seed 0", or "zoo 1 seed 0". */
function repetitionText(run) {
  return [...(run.zoo ? [`zoo ${run.zoo}`] : []), `seed ${run.seed}`].join(" ");
}

/** The last part of a dotted key, or the part before it where the last one says nothing alone. */
function shortKey(key) {
  const parts = key.split(".");
  const last = parts.pop();
  return ["kind", "name", "label", "seed"].includes(last) && parts.length ? parts.pop() : last;
}

/** Methods that are bounds, not merged models, are never the best of a column. */
function isMerged(method) {
  return !method.bound;
}
