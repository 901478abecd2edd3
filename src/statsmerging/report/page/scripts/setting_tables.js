"use strict";
// Sweeps at a glance, then one table per setting with all tasks in columns, then how far the
// learned methods move the weights, and what all methods cost.

/** Of more settings, the tables of the single ones are folded. */
const UNFOLDED = 2;

function startSettingTables(content) {
  const runs = new Map(content.runs.map((run) => [run.name, run]));
  const settings = content.settings.map((setting) => settingTable(setting, runs));
  document
    .getElementById("setting-tables")
    .append(
      ...content.sweeps.map((sweep) => article(`All settings: ${sweep.title}`, resultTable(sweep))),
      ...(settings.length > UNFOLDED
        ? [folded(`${settings.length} tables, one for each setting`, settings)]
        : settings),
      ...content.movements.map((movement) =>
        article(`Movement of the weights: ${movement.title}`, resultTable(movement)),
      ),
      ...content.costs.map((cost) => article(`Cost: ${cost.title}`, resultTable(cost))),
    );
}

function settingTable(setting, runs) {
  const members = setting.runs.map((name) => runs.get(name));
  const links = members.map((run) => runLink(run, repetitionText(run)));
  return article(
    setting.heading,
    element("p", { class: "facts" }, setting.title),
    notices(members).map(foldedNotice),
    resultTable(setting),
    element("p", { class: "members" }, members.length > 1 ? "Runs: " : "Run: ", joined(links)),
  );
}

function article(title, ...children) {
  return element(
    "article",
    { class: "setting-table" },
    element("h3", {}, title),
    ...children.flat(),
  );
}

/** A table as the report's other files have it; the method, which names the row, stands first. */
function resultTable({ caption, labels, columns, sections }) {
  const places = labels.map((_, place) => place);
  const order = places.sort((a, b) => (labels[b] === "method") - (labels[a] === "method"));
  const headings = [
    ...order.map((place) => ({ label: labels[place] })),
    ...columns.map((label) => ({ label, numeric: true })),
  ];
  const groups = sections.map(({ heading, rows }) => ({
    title: heading,
    rows: rows.map((row) => resultRow(row, order)),
  }));
  return new SortableTable(caption, headings, groups).element;
}

function resultRow({ labels, numbers, kind }, order) {
  const cells = numbers.map((number) =>
    number === null
      ? { value: null }
      : { value: number.mean, text: number.text, class: [null, "best", "second"][number.place] },
  );
  return { class: kind, cells: [...order.map((place) => ({ value: labels[place] })), ...cells] };
}

/** Stamps and warnings of several runs: each once, with the number of runs that have it. */
function notices(runs) {
  return ["stamps", "warnings"].flatMap((kind) => {
    const lines = new Map();
    for (const line of runs.flatMap((run) => run[kind]))
      lines.set(line, (lines.get(line) ?? 0) + 1);
    const texts = [...lines].map(([line, times]) => {
      const among =
        runs.length > 1 && times < runs.length ? ` (${times} of ${runs.length} runs)` : "";
      return line + among;
    });
    return texts.length ? [notice(kind, texts)] : [];
  });
}

/** One box for all of a kind: a line where it is one, else a list under their number. */
function notice(kind, texts) {
  const [word, noun] = kind === "stamps" ? ["Stamp", "stamp"] : ["Warning", "warning"];
  const one = texts.length === 1;
  const lines = texts.map((text) => element("li", {}, text));
  return element(
    "div",
    { class: `notice ${kind}` },
    element("strong", {}, one ? word : counted(lines.length, noun)),
    one ? ` ${texts[0]}` : element("ul", {}, lines),
  );
}

/** Warnings that a reader opens: the opening of the page has told of them. */
function foldedNotice(shown) {
  if (!shown.classList.contains("warnings")) return shown;
  return folded(shown.querySelector("strong").textContent, shown);
}

function joined(nodes) {
  return nodes.flatMap((node, index) => (index ? [", ", node] : [node]));
}
