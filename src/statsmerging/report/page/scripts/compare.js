"use strict";
// Two runs side by side: where their configs differ, and every accuracy.

function startCompare(content) {
  const form = document.getElementById("compare-choice");
  if (content.runs.length < 2) {
    form.replaceWith(element("p", { class: "about" }, "There is one run only."));
    return;
  }
  const options = content.runs.map((run, index) => [
    index,
    `${settingText(content, run)} (${run.name})`,
  ]);
  const first = choice(options, { id: "compare-first" });
  const second = choice(options, { id: "compare-second" });
  second.value = rivalOfFirst(content);
  const everyKey = element("input", { type: "checkbox" });
  const show = () => {
    const [a, b] = [content.runs[first.value], content.runs[second.value]];
    const parts =
      a === b
        ? [element("p", { class: "about" }, "This is one run twice.")]
        : [accuracyDifferences(a, b), configDifferences(a, b, everyKey.checked)];
    document.getElementById("comparison").replaceChildren(...parts);
  };
  const swap = () => {
    [first.value, second.value] = [second.value, first.value];
    show();
  };
  form.append(
    field("run A", first),
    field("run B", second),
    element("button", { type: "button", class: "quiet", onclick: swap }, "Swap"),
    element("label", { class: "tick" }, everyKey, element("span", {}, "all keys of the config")),
  );
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}

/** Another setting with the zoo and seed of the first run; where there is none, the next run. */
function rivalOfFirst({ runs: [first, ...others] }) {
  const setting = (run) => JSON.stringify(run.setting);
  const place = others.findIndex(
    (run) =>
      run.zoo === first.zoo && run.seed === first.seed && setting(run) !== setting(first),
  );
  return Math.max(place, 0) + 1;
}

function accuracyDifferences(a, b) {
  const pairs = methodPairs(a, b);
  const title = element("h3", {}, "Accuracies, B − A");
  if (!pairs.length) {
    return element(
      "div",
      {},
      title,
      element("p", { class: "about" }, "They have no method in common."),
    );
  }
  const measures = comparedMeasures(pairs);
  const columns = [{ label: "method" }, ...measures.map(({ label }) => ({ label, numeric: true }))];
  const rows = pairs.map(([one, other]) => ({
    class: one.bound ? "bound" : null,
    cells: [
      { value: one.title === other.title ? one.title : `${one.title} → ${other.title}` },
      ...measures.map(({ of }) => differenceCell(of(one), of(other))),
    ],
  }));
  const caption = "Differences of every accuracy in points; below them A → B in %";
  return element(
    "div",
    { class: "differences" },
    title,
    new SortableTable(caption, columns, [{ rows }]).element,
  );
}

/** Methods that both runs have; where each has one more, those two. */
function methodPairs(a, b) {
  const find = (run, name) => run.methods.find((method) => method.name === name);
  const shared = a.methods
    .filter(({ name }) => find(b, name))
    .map((one) => [one, find(b, one.name)]);
  const rest = [
    [a, b],
    [b, a],
  ].map(([run, other]) =>
    run.methods.filter((method) => isMerged(method) && !find(other, method.name)),
  );
  const lone = rest.every(({ length }) => length === 1) ? [[rest[0][0], rest[1][0]]] : [];
  return [...shared, ...lone];
}

/** The measures that any of the methods has, tasks first. */
function comparedMeasures(pairs) {
  const methods = pairs.flat();
  const tasks = (part) => [...new Set(methods.flatMap((method) => Object.keys(part(method))))];
  const plain = (task) => task.replaceAll("_", " ");
  return [
    ...tasks((m) => m.accuracy).map((task) => ({
      label: plain(task),
      of: (m) => m.accuracy[task],
    })),
    ...MEASURES.slice(0, 3),
    ...tasks((m) => m.unseen).map((task) => ({
      label: `unseen: ${plain(task)}`,
      of: (m) => m.unseen[task],
    })),
    MEASURES[3],
  ].filter(({ of }) => methods.some((method) => (of(method) ?? null) !== null));
}

function differenceCell(before, after) {
  const values = [before ?? null, after ?? null];
  if (values.includes(null)) {
    const text = values.every((value) => value === null)
      ? ""
      : values.map((v) => percent(v) || "–").join(" → ");
    return { value: null, node: element("span", { class: "from-to" }, text) };
  }
  const difference = after - before;
  const shown = points(difference);
  const sign = shown === "0.0" ? "same" : difference > 0 ? "more" : "less";
  const node = element(
    "span",
    { class: "difference" },
    element("span", { class: `change ${sign}` }, shown),
    element(
      "span",
      { class: "from-to" },
      sign === "same" ? percent(after) : `${percent(before)} → ${percent(after)}`,
    ),
  );
  return { value: difference, node };
}

function configDifferences(a, b, everyKey) {
  const [one, other] = [flattened(a.config), flattened(b.config)];
  const alone = [methodsOfOne(a, b), methodsOfOne(b, a)];
  const told = (key) => alone.flat().some((name) => key.startsWith(`method.${name}.`));
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])].filter(
    (key) => !told(key),
  );
  const differs = (key) =>
    key in one !== key in other || valueText(one[key]) !== valueText(other[key]);
  const columns = [{ label: "key" }, { label: "A" }, { label: "B" }];
  const rows = keys
    .filter((key) => everyKey || differs(key))
    .map((key) => ({
      class: differs(key) ? "differs" : null,
      cells: [{ value: key, class: "code" }, configCell(one, key), configCell(other, key)],
    }));
  const number = keys.filter(differs).length;
  const caption = "Keys of the resolved configs; those that differ are marked";
  return element(
    "div",
    { class: "configs" },
    element("h3", {}, `Configs: ${number === 1 ? "1 key differs" : `${number} keys differ`}`),
    rows.length ? new SortableTable(caption, columns, [{ rows }]).element : null,
    alone.map((names, side) =>
      names.length
        ? element("p", { class: "members" }, `Only ${"AB"[side]} ran: ${names.join(", ")}.`)
        : null,
    ),
  );
}

/** Methods whose parameters only the first run's config has; naming them says it all. */
function methodsOfOne({ config: { method: ours = {} } }, { config: { method: theirs = {} } }) {
  return Object.keys(ours).filter((name) => !(name in theirs));
}

function configCell(config, key) {
  const known = key in config;
  const text = known ? valueText(config[key]) : "no such key";
  return { value: known ? config[key] : null, text, class: known ? "code" : "code absent" };
}

/** Dotted key → value. */
function flattened(config, prefix = "") {
  return Object.entries(config).reduce((flat, [key, value]) => {
    const nested = value !== null && typeof value === "object" && !Array.isArray(value);
    const part = nested ? flattened(value, `${prefix}${key}.`) : { [prefix + key]: value };
    return { ...flat, ...part };
  }, {});
}
