"use strict";
// The details of every run: made when they are opened, since a sweep may have hundreds.

/** Of more runs, the others are folded. */
const LISTED = 10;

function startRuns(content) {
  const runs = content.runs.map((run) => runDetails(content, run));
  const others = runs.slice(LISTED);
  document
    .getElementById("run-list")
    .append(
      ...runs.slice(0, LISTED),
      ...(others.length ? [folded(counted(others.length, "further run"), others)] : []),
    );
  addEventListener("hashchange", openTarget);
  // A link to the place one is at already changes no address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#run']");
    if (link && link.hash === location.hash) openTarget();
  });
  openTarget();
}

/** Open the run that the address names. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!(target instanceof HTMLDetailsElement)) return;
  for (let place = target; place; place = place.parentElement.closest("details")) {
    place.open = true;
  }
  target.scrollIntoView();
  target.querySelector("summary").focus({ preventScroll: true });
}

function runDetails(content, run) {
  const merged = run.methods.filter(isMerged);
  const methods =
    merged.length > 2 ? counted(merged.length, "method") : merged.map((m) => m.title).join(", ");
  const details = element(
    "details",
    { class: "run", id: runId(run) },
    element(
      "summary",
      {},
      element("span", { class: "run-setting" }, settingText(content, run)),
      element("span", { class: "run-methods" }, methods),
      element("span", { class: "run-name" }, run.name),
      badges(run.stamps, run.warnings),
    ),
  );
  const page = content.pages[run.name];
  const body = () => details.append(...runBody(run, page));
  details.addEventListener("toggle", body, { once: true });
  return details;
}

function runBody(run, page) {
  return [
    page
      ? element(
          "p",
          {},
          element("a", { href: page }, "Table, coefficients and curves of this run"),
        )
      : null,
    ...notices([run]),
    facts([
      ["suite", run.suite],
      ["backbone", run.backbone],
      ["seed", String(run.seed)],
      ["from", run.from],
      ["directory", run.path],
      ["hash", run.hash],
      ["code", codeText(run.code)],
      ...Object.entries(run.hardware).map(([key, value]) => [
        key.replaceAll("_", " "),
        listText(value),
      ]),
    ]),
    distilledTable(run),
    command("Make it again from its record, and compare every number", run.reproduce),
    command(
      run.of_sweep ? "The sweep of which it was one job" : "The command that made it",
      run.command,
    ),
    run.of_sweep ? element("p", { class: "facts" }, `This job: ${ownSettings(run)}.`) : null,
    run.config_text ? folded("config.yaml", yaml(run.config_text)) : null,
    folded(
      `Packages (${Object.keys(run.packages).length})`,
      facts(Object.entries(run.packages), "packages"),
    ),
    folded(
      "Fingerprints of weights and data (sha256)",
      facts(Object.entries(run.fingerprints), "fingerprints"),
    ),
  ].filter((part) => part !== null);
}

/** Experts of other architectures; nothing for a run without. */
function distilledTable(run) {
  const columns = [
    { label: "task" },
    { label: "architecture" },
    ...["teacher, %", "student, %", "test images"].map((label) => ({ label, numeric: true })),
  ];
  const rows = Object.entries(run.distilled).map(([task, expert]) => ({
    cells: [
      { value: task },
      { value: expert.architecture },
      { value: expert.teacher, text: percent(expert.teacher) },
      { value: expert.student, text: percent(expert.student) },
      { value: expert.images },
    ],
  }));
  if (!rows.length) return null;
  return new SortableTable("Experts distilled into the backbone", columns, [{ rows }]).element;
}

/** What tells a job from others of its sweep. */
function ownSettings(run) {
  const settings = Object.entries(run.setting).map(([key, value]) => `${key}=${valueText(value)}`);
  return [...settings, `seed=${run.seed}`].join(", ");
}

function codeText({ statsmerging, commit, modified }) {
  if (!statsmerging) return "";
  const parts = [`statsmerging ${statsmerging}`, commit ? `commit ${commit}` : "no commit known"];
  return [...parts, ...(modified ? ["with changes that no commit holds"] : [])].join(", ");
}

function listText(value) {
  return Array.isArray(value) ? value.join(", ") || "none" : valueText(value);
}

/** Terms with their values; those without are left out. */
function facts(pairs, kind = "") {
  const known = pairs.filter(([, value]) => value !== null && value !== "");
  const lines = known.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value)),
  );
  return element("dl", { class: `fact-list ${kind}` }, lines);
}

function folded(title, ...children) {
  return element("details", { class: "folded" }, element("summary", {}, title), children);
}

/** A command with a button that copies it, where the browser lets a page do that. */
function command(title, text) {
  if (!text) return null;
  const copy = async (event) => {
    const button = event.currentTarget;
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  const attributes = {
    type: "button",
    class: "quiet",
    onclick: copy,
    "aria-label": `Copy: ${title}`,
  };
  return element(
    "div",
    { class: "command" },
    element("p", {}, title),
    element("pre", { tabindex: "0" }, element("code", {}, text)),
    navigator.clipboard ? element("button", attributes, "Copy") : null,
  );
}

/** YAML with its keys set apart from its values. */
function yaml(text) {
  const lines = text
    .trimEnd()
    .split("\n")
    .flatMap((line) => {
      const [, lead, key, rest] = line.match(/^(\s*(?:- )?)([\w.-]+:)(.*)$/) ?? [
        null,
        line,
        "",
        "",
      ];
      return [lead, element("span", { class: "key" }, key), rest, "\n"];
    });
  return element("pre", { class: "yaml", tabindex: "0" }, element("code", {}, lines));
}
