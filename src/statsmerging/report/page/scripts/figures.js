"use strict";
// The charts, one at a time, in the colours and the width of the page. A title is "kind · of what".

/** Seen on light and on dark. */
const GREY = "rgba(127, 127, 127, 0.8)";
const FAINT = "rgba(127, 127, 127, 0.25)";

/** A chart's sizes are those of paper, in points; the page's text is so much larger. */
const ENLARGED = 1.5;
const SIZES = {
  step: ENLARGED,
  strokeWidth: ENLARGED,
  // These are areas.
  size: ENLARGED ** 2,
  symbolSize: ENLARGED ** 2,
};

/** Of more characters, a chart has thousands of marks: they are drawn as one picture. */
const LONG = 150_000;

function startFigures(figures) {
  const list = document.getElementById("figure-list");
  const form = document.getElementById("figure-choice");
  if (!figures.length) {
    form.previousElementSibling.remove();
    form.remove();
    list.append(element("p", { class: "about" }, "These runs have no data for figures."));
    return;
  }
  const select = figureSelect(figures);
  const place = element("div", { class: "plot" });
  const caption = element("figcaption", {}, figures[0].title);
  list.append(element("figure", {}, caption, scrollable("Figure", place)));

  let view = null;
  // One drawing after another; of the choices made meanwhile, only the last is drawn.
  let drawing = Promise.resolve();
  let asked = 0;
  const show = () => {
    caption.textContent = figures[select.value].title;
    const turn = ++asked;
    drawing = drawing
      .then(async () => {
        if (turn === asked) view = await drawn(figures[select.value].spec, place);
      })
      .catch((error) => place.replaceChildren(`This figure cannot be drawn: ${error.message}`));
  };
  const step = (by) => {
    select.selectedIndex = (select.selectedIndex + by + figures.length) % figures.length;
    show();
  };
  const save = async () => {
    const href = await view.toImageURL("png", 2);
    element("a", { href, download: `${caption.textContent}.png` }).click();
  };
  const button = (text, onclick) =>
    element("button", { type: "button", class: "quiet", onclick }, text);
  form.append(
    field("figure", select),
    button("Previous", () => step(-1)),
    button("Next", () => step(1)),
    button("Save as PNG", save),
  );
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  // Drawing waits until the figure comes near: the rest of the page must not wait for it.
  const watcher = new IntersectionObserver(
    (seen) => {
      if (seen.some((entry) => entry.isIntersecting)) {
        watcher.disconnect();
        addEventListener("themechange", show);
        // The first report of an observer is the width as it is.
        let width = null;
        new ResizeObserver(() => {
          if (width !== place.parentElement.clientWidth) show();
          width = place.parentElement.clientWidth;
        }).observe(place.parentElement);
      }
    },
    { rootMargin: "600px" },
  );
  watcher.observe(place);
  addEventListener("beforeprint", () => view ?? show());
}

/** All figures by their kinds; the value is the place in the list. */
function figureSelect(figures) {
  const kinds = new Map();
  figures.forEach(({ title }, index) => {
    const [kind, ...rest] = title.split(" · ");
    if (!kinds.has(kind)) kinds.set(kind, []);
    kinds.get(kind).push(element("option", { value: index }, rest.join(" · ") || kind));
  });
  const groups = [...kinds].map(([label, options]) => element("optgroup", { label }, options));
  return element("select", { id: "figure-shown" }, groups);
}

/** Draw a chart as wide as its place; gives its view. */
async function drawn(spec, place) {
  const { columns: most, least } = spec.usermeta;
  // A map has no use for less width; it is then scrolled, like a table.
  const room = Math.max(place.clientWidth, least);
  const columns = Math.max(1, Math.min(most, Math.floor(room / 240)));
  const options = {
    mode: "vega-lite",
    // Expressions are interpreted, not compiled: the page allows no script to make scripts.
    ast: true,
    actions: false,
    renderer: JSON.stringify(spec).length > LONG ? "canvas" : "svg",
    tooltip: { theme: document.documentElement.dataset.theme },
  };
  const chart = enlarged(spec, columns);
  const draw = async (width) => {
    const config = configOf(spec, place, room, (width + 90) * columns - 90, width);
    return (await vegaEmbed(place, chart, { ...options, config })).view;
  };
  // Widths of panels exclude their axes, whose labels have any length: measure, then fit.
  const width = Math.max(60, room / columns - 90);
  const view = await draw(width);
  const excess = place.querySelector(".marks").getBoundingClientRect().width - room;
  return Math.abs(excess) < 2 ? view : draw(Math.max(60, width - excess / columns));
}

/** The chart with larger rows, cells and marks, and no more panels in a row than that. */
function enlarged(node, columns) {
  if (Array.isArray(node)) return node.map((item) => enlarged(item, columns));
  if (node === null || typeof node !== "object") return node;
  const entries = Object.entries(node).map(([key, value]) => {
    if (key === "columns") return [key, Math.min(value, columns)];
    if (key in SIZES) return [key, value * SIZES[key]];
    return [key, key === "datasets" ? value : enlarged(value, columns)];
  });
  return Object.fromEntries(entries);
}

/** Colours, type and sizes of the page for Vega. */
function configOf(spec, place, room, legendRoom, width) {
  const { color, fontFamily: font } = getComputedStyle(place);
  const text = { labelColor: color, titleColor: color, labelFontSize: 12, titleFontSize: 12 };
  const plain = { ...text, titleFontWeight: "normal" };
  return {
    // That of the page, for pictures that are saved.
    background: getComputedStyle(place.parentElement).backgroundColor,
    font,
    axis: { ...plain, domainColor: GREY, gridColor: FAINT, tickColor: GREY, labelLimit: 0.4 * room },
    header: { ...text, labelLimit: 0 },
    legend: {
      ...plain,
      orient: "bottom",
      columns: Math.max(1, Math.floor(legendRoom / (7 * spec.usermeta.longest + 40))),
      gradientLength: 200,
      labelLimit: legendRoom - 40,
    },
    point: { size: 50 },
    text: { fontSize: 10 },
    title: { anchor: "start", color, fontSize: 12, fontWeight: "normal" },
    view: { stroke: null, continuousHeight: 220, continuousWidth: width, discreteWidth: width },
  };
}
