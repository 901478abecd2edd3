"use strict";
// One row per run and method, filtered by text and by the settings in which runs differ.

const MEASURES = [
  { label: "average", title: "mean top-1 accuracy over the seen tasks, %", of: (m) => m.average },
  {
    label: "normalised",
    title: "mean of accuracy / accuracy of the individual models, %",
    of: (m) => m.normalised,
  },
  {
    label: "agreement",
    title: "with the teachers, on unlabeled images, %",
    of: (m) => m.agreement,
  },
  {
    label: "unseen",
    title: "mean top-1 accuracy over the unseen tasks, %",
    of: (m) => m.unseen_average,
  },
];

/** Rows that are seen at once, and filters that are not folded. */
const ROWS = 20;
const FILTERS = 4;

function startOverview(content) {
  const entries = content.runs.flatMap((run) => run.methods.map((method) => ({ run, method })));
  const measures = MEASURES.filter(({ of }) => entries.some(({ method }) => of(method) !== null));
  const columns = [
    { label: "method" },
    ...content.keys.map((key) => ({ label: shortKey(key), title: key })),
    { label: "seed", numeric: true },
    ...measures.map(({ label, title }) => ({ label, title, numeric: true })),
    { label: "run" },
  ];
  const table = new SortableTable("Runs and methods; accuracies in %", columns);
  document.getElementById("overview-table").append(table.element);

  let most = ROWS;
  const showAll = () => {
    most = Infinity;
    apply();
  };
  const more = element("button", { type: "button", class: "quiet more", onclick: showAll });
  document.getElementById("overview-table").append(more);

  const filters = overviewFilters(content, entries);
  const form = document.getElementById("filters");
  const apply = () => {
    const shown = entries.filter(filters.accepts);
    const best = measures.map(({ of }) => bestOf(shown, of));
    const rows = shown.map((entry) => overviewRow(content, entry, measures, best));
    table.show([{ rows }], most);
    more.textContent = `Show all ${counted(rows.length, "row")}`;
    more.hidden = rows.length <= most;
    const all = counted(entries.length, "row");
    document.getElementById("row-count").textContent = `${shown.length} of ${all}`;
  };
  form.append(...filters.fields);
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
}

/** The controls, and which entries they let through. */
function overviewFilters(content, entries) {
  const text = element("input", { type: "search", placeholder: "any column" });
  const bounds = element("input", { type: "checkbox" });
  const selects = [
    ["method", (entry) => entry.method.title],
    ...content.keys.map((key) => [key, (entry) => valueText(settingOf(entry, key))]),
    ["seed", (entry) => String(entry.run.seed)],
  ]
    .map(([label, of]) => ({ label, of, values: distinct(entries.map(of)) }))
    .filter(({ values }) => values.length > 1)
    .map(({ label, of, values }) => {
      const control = choice([["", "all"], ...values.map((value) => [`=${value}`, value])]);
      return { label, of, control };
    });

  const accepts = (entry) =>
    (bounds.checked || isMerged(entry.method)) &&
    selects.every(({ of, control }) => !control.value || control.value === `=${of(entry)}`) &&
    searched(content, entry).includes(text.value.trim().toLowerCase());
  const controls = selects.map(({ label, control }) => field(label, control));
  const folded = controls.slice(FILTERS);
  const fields = [
    field("text", text),
    ...controls.slice(0, FILTERS),
    element("label", { class: "tick" }, bounds, element("span", {}, "with the bounds")),
    element("button", { type: "reset", class: "quiet" }, "Reset"),
    ...(folded.length
      ? [
          element(
            "details",
            { class: "folded" },
            element("summary", {}, counted(folded.length, "more filter")),
            element("div", { class: "controls" }, folded),
          ),
        ]
      : []),
  ];
  return { fields, accepts };
}

/** Values in order, without what is empty. */
function distinct(values) {
  return [...new Set(values)].filter((value) => value !== "").sort(collator.compare);
}

/** A setting of the row; one of a method's parameters belongs to that method's rows alone. */
function settingOf({ run, method }, key) {
  const [group, name] = key.split(".");
  return group === "method" && name !== method.name ? undefined : run.setting[key];
}

function searched(content, entry) {
  const settings = content.keys.map((key) => valueText(settingOf(entry, key)));
  const { run, method } = entry;
  const notes = [...run.stamps, ...method.warnings];
  return [method.title, method.name, ...settings, run.name, `seed ${run.seed}`, ...notes]
    .join("\n")
    .toLowerCase();
}

/** As it is printed: no reader sees two equal numbers of which one is the better. */
function printed(number) {
  return Number(percent(number));
}

/** The best number among merged models that may be compared: question → number. */
function bestOf(entries, of) {
  const best = new Map();
  const merged = entries.filter(({ method }) => isMerged(method) && of(method) !== null);
  for (const { method } of merged) {
    best.set(method.peers, Math.max(printed(of(method)), best.get(method.peers) ?? -Infinity));
  }
  return best;
}

function overviewRow(content, entry, measures, best) {
  const { run, method } = entry;
  const name = [runLink(run, method.title), ...badges(run.stamps, method.warnings)];
  const isBest = (of, index) =>
    isMerged(method) && printed(of(method)) === best[index].get(method.peers);
  return {
    class: method.bound ? "bound" : null,
    cells: [
      { value: method.title, node: element("span", { class: "method" }, name) },
      ...content.keys.map((key) => {
        const value = settingOf(entry, key);
        return { value, class: "setting", title: valueText(value) };
      }),
      { value: run.seed },
      ...measures.map(({ of }, index) => ({
        value: of(method),
        text: percent(of(method)),
        class: of(method) !== null && isBest(of, index) ? "best" : null,
      })),
      { value: run.name, class: "code" },
    ],
  };
}

/** Short marks for what a reader must know before the numbers. */
function badges(stamps, warnings) {
  const mark = (kind, lines, noun) =>
    lines.length
      ? element(
          "span",
          { class: `badge ${kind}`, title: lines.join("\n") },
          counted(lines.length, noun),
        )
      : null;
  return [mark("stamp", stamps, "stamp"), mark("warning", warnings, "warning")];
}
