"use strict";
// Interactive figures, one at a time, in the colours of the page. A title is "kind · of what".

/** Below this width in pixels a legend stands under its figure, and there are no tools above it. */
const NARROW = 640;

/** Without plotly's other tools, of which one uploads the figure. */
const TOOLS = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];

/** Seen on light and on dark. */
const GREY = "rgba(127, 127, 127, 0.8)";

function startFigures(figures) {
  const list = document.getElementById("figure-list");
  const form = document.getElementById("figure-choice");
  if (!figures.length) {
    form.remove();
    list.append(element("p", { class: "about" }, "These runs have no data for figures."));
    return;
  }
  const select = figureSelect(figures);
  const place = element("div", { class: "plot" });
  const caption = element("figcaption");
  list.append(element("figure", {}, caption, scrollable("Figure", place)));

  const makeRoom = (figure) => {
    // A map has no use for less width; it is then scrolled, like a table.
    const isMap = figure.data.some(({ type }) => type === "heatmap");
    place.style.minWidth = isMap ? "36rem" : "0";
    caption.textContent = figure.title;
    place.style.height = `${(figure.layout.height ?? 450) + legendRoom(figure, place)}px`;
  };
  const show = () => {
    const figure = figures[select.value];
    makeRoom(figure);
    Plotly.react(place, figure.data, layoutOf(figure, place), {
      displaylogo: false,
      modeBarButtons: TOOLS,
      displayModeBar: isNarrow(place) ? false : "hover",
      responsive: true,
    });
  };
  const step = (by) => {
    select.selectedIndex = (select.selectedIndex + by + figures.length) % figures.length;
    show();
  };
  form.append(
    field("figure", select),
    element("button", { type: "button", class: "quiet", onclick: () => step(-1) }, "Previous"),
    element("button", { type: "button", class: "quiet", onclick: () => step(1) }, "Next"),
  );
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("themechange", show);
  makeRoom(figures[0]);
  // Drawing waits until the figure comes near: the rest of the page must not wait for it.
  const watcher = new IntersectionObserver(
    (seen) => {
      if (seen.some((entry) => entry.isIntersecting)) {
        watcher.disconnect();
        show();
      }
    },
    { rootMargin: "600px" },
  );
  watcher.observe(place);
  addEventListener("beforeprint", show);
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

function isNarrow(place) {
  return place.clientWidth < NARROW;
}

/** Height in pixels for the legend below a narrow figure; a long one scrolls. */
function legendRoom(figure, place) {
  const entries = figure.data.filter(({ name, showlegend }) => name && showlegend !== false);
  return isNarrow(place) && entries.length > 1 ? Math.min(20 + 22 * entries.length, 200) : 0;
}

/** The figure's layout in the colours of the page; its height is that of its place. */
function layoutOf(figure, place) {
  const style = getComputedStyle(place);
  const room = legendRoom(figure, place);
  const below = { orientation: "h", yref: "container", x: 0, y: 0, yanchor: "bottom" };
  const { height, ...layout } = figure.layout;
  return {
    ...layout,
    autosize: true,
    font: { color: style.color, family: style.fontFamily, size: 13 },
    legend: { ...layout.legend, ...(room ? below : {}) },
    margin: { ...layout.margin, r: 20, ...(room ? { l: 40, b: room + 60 } : {}) },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: GREY, activecolor: style.color },
    hoverlabel: { font: { family: style.fontFamily, size: 13 } },
  };
}
