"use strict";
// Interactive figures, one at a time, in the colours of the page. A title is "kind · of what".

const PLOT_CONFIG = { displaylogo: false, responsive: true };

/** Below this width in pixels a legend stands under its figure. */
const NARROW = 640;

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

  const show = () => {
    const figure = figures[select.value];
    caption.textContent = figure.title;
    place.style.height = `${figure.layout.height ?? 450}px`;
    Plotly.react(place, figure.data, layoutOf(figure, place), PLOT_CONFIG);
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
  // Drawing waits until the figure comes near: the rest of the page must not wait for it.
  const watcher = new IntersectionObserver((seen) => {
    if (seen.some((entry) => entry.isIntersecting)) {
      watcher.disconnect();
      show();
    }
  }, { rootMargin: "600px" });
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

/** The figure's layout in the colours of the page. */
function layoutOf(figure, place) {
  const style = getComputedStyle(place);
  const narrow = place.clientWidth < NARROW;
  const below = narrow ? { orientation: "h", x: 0, y: -0.15, yanchor: "top" } : {};
  return {
    ...figure.layout,
    autosize: true,
    font: { color: style.color, family: style.fontFamily, size: 13 },
    legend: { ...figure.layout.legend, ...below },
    margin: { ...figure.layout.margin, r: 20, ...(narrow ? { l: 40 } : {}) },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: GREY, activecolor: style.color },
    hoverlabel: { font: { family: style.fontFamily, size: 13 } },
  };
}
