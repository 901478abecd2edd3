"""Every kind of figure once: a chart for paper and for the page, in the grammar of Vega-Lite.

A chart holds data, marks, scales and titles. Font sizes, the width of panels and the place of the
legend depend on the medium: see ``style.printed`` and the page's ``figures.js``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from statsmerging.errors import printable
from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.style import (
    PAGE_CHARACTERS,
    POINTER,
    colours,
    dashes,
    folded,
    heat,
    laid_out,
    shapes,
)
from statsmerging.report.frames import axis_scale, by_depth, drawn
from statsmerging.report.series import LABELS
from statsmerging.runs.results import BOUND_TITLES, BOUNDS

#: Methods of one dot plot on paper; more could not be told apart.
SHOWN = 8

#: The method this software is about: drawn even where others are better.
OWN = "stats_merging"

#: Heights in points: of a row of dots at least, of each method in it, of a cell of a map, and of
#: a map of many blocks.
ROW, METHOD, CELL, MAP = 18, 3, 9, 130

#: Side of a cell that holds a number, at least and at most, in points.
NUMBER = (18, 30)

#: Of more layers and tasks, the dots of a statistic are smaller.
MANY = 2000

#: Steps of the running mean of a learning curve, as a share of all.
WINDOW = 0.05

#: Legends of markers, and of lines, which are long enough to show their dashes.
_LEGEND = alt.Legend(symbolSize=36)
_LINES = alt.Legend(symbolSize=400)

#: A click on an entry of the legend shows that one alone.
_PICKED: dict[str, Any] = {"name": "picked", "bind": "legend"}

#: Panels with one vertical scale, to compare them.
_SHARED = alt.Resolve(scale=alt.ScaleResolveMap(y="shared"))

#: An axis on which nothing lies between whole numbers.
_WHOLE = alt.Axis(format="d", tickMinStep=1)


def chart(drawing: Drawing, most: int | None = None) -> alt.TopLevelMixin:
    """The chart of a drawing.

    Args:
        drawing: with its data.
        most: methods that a dot plot shows; None: all.
    """
    frame = drawing.frame.map(lambda cell: printable(cell) if isinstance(cell, str) else cell)
    match drawing.kind:
        case "dots":
            made = dots(frame, most)
        case "severity" | "tasks" | "images":
            made = against(frame, LABELS[drawing.kind])
        case "heatmap":
            made = heatmap(frame)
        case "depth":
            made = depth(frame)
        case "learning_curves":
            made = learning_curves(frame)
        case "statistics":
            made = statistics(frame)
        case "cosines":
            made = cosine_matrix(frame)
    return made.properties(description=printable(drawing.title))


def dots(frame: pd.DataFrame, most: int | None = None) -> alt.TopLevelMixin:
    """Tasks as rows, methods as markers with deviations over the seeds; bounds as upright bars.

    Args:
        frame: ``frames.accuracies`` in one setting.
        most: methods to show; None: all.
    """
    methods = frame.loc[~frame["method"].isin(BOUNDS), "method"].nunique()
    note = ""
    if most is not None and methods > most:
        frame = best_methods(frame, most)
        note = f"{most} of {methods} methods: our own and the best on average"
    seen = frame["seen"].astype(bool)
    named = frame.assign(task=frame["task"].where(seen, "unseen: " + frame["task"]))
    groups = named.groupby(["title", "task"], sort=False)["accuracy"]
    means = _with_deviations(groups.agg(["mean", "std", "count"]).reset_index())
    merged = [name for name in means["title"].unique() if name not in BOUND_TITLES.values()]
    bounds = [name for name in BOUND_TITLES.values() if name in set(means["title"])]
    picked = alt.selection_point(fields=["title"], **_PICKED)
    base = alt.Chart().encode(
        y=alt.Y("task:N", sort=list(means["task"].unique()), title=None).scale(paddingInner=0.3),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
        color=alt.Color("title:N", scale=colours([*bounds, *merged]), title=None, legend=_LEGEND),
        tooltip=["title:N", "task:N", alt.Tooltip("text:N", title="accuracy, %")],
    )
    axis = alt.X("mean:Q", title="top-1 accuracy, %").scale(zero=False, nice=False, padding=8)
    look = alt.Shape("title:N", scale=shapes([*bounds, *merged]), title=None, legend=_LEGEND)
    beside = alt.YOffset("title:N").scale(domain=merged)
    of_bounds = alt.FieldOneOfPredicate(field="title", oneOf=bounds)
    others = base.transform_filter(alt.LogicalNotPredicate(**{"not": of_bounds})).encode(
        yOffset=beside
    )
    layers = [
        base.transform_filter(of_bounds).mark_point(filled=True, size=180).encode(axis, look),
        others.mark_rule().encode(alt.X("low:Q"), alt.X2("high:Q")),
        others.mark_point(filled=True).encode(axis, look),
    ]
    step = {"step": max(ROW, METHOD * len(merged)), "for": "position"}
    layered = alt.layer(*layers, data=_data(means), height=step, title=note)
    layered = layered.add_params(picked, _zoom(0, ["x"]))
    return laid_out(layered, 1, [*bounds, *merged])


def best_methods(frame: pd.DataFrame, count: int = SHOWN) -> pd.DataFrame:
    """Bounds, StatsMerging, and others with the best averages over seen tasks, in their order."""
    merged = frame[frame["seen"] & ~frame["method"].isin(BOUNDS)]
    means = merged.groupby("method")["accuracy"].mean()
    own = means.index.intersection([OWN])
    best = means.drop(own).nlargest(count - len(own)).index
    return frame[frame["method"].isin([*BOUNDS, *own, *best])]


def against(frame: pd.DataFrame, label: str) -> alt.TopLevelMixin:
    """Average accuracy against ``x``: one panel for each kind of corruption, one line a method.

    Args:
        frame: a table of ``report.series`` for one problem.
        label: meaning of ``x``.
    """
    number = pd.api.types.is_numeric_dtype(frame["x"])
    across = (
        alt.X("x:Q", title=label, axis=_WHOLE).scale(zero=False, nice=False, padding=6)
        if number
        else alt.X("x:O", title=label, sort=list(frame["x"].unique()), axis=alt.Axis(labelAngle=0))
    )
    names = [name for name in frame["line"].unique() if name not in BOUND_TITLES.values()]
    names += [name for name in BOUND_TITLES.values() if name in set(frame["line"])]
    base = _lines(
        "line",
        names,
        ["panel:N", alt.Tooltip("x:N", title=label), alt.Tooltip("text:N", title="accuracy, %")],
        _LEGEND,
    )
    up = alt.Y("mean:Q", title="average accuracy, %").scale(zero=False, nice=False, padding=6)
    look = alt.Shape("line:N", scale=shapes(names), title=None, legend=_LEGEND)
    layers = [
        base.mark_rule().encode(across, alt.Y("low:Q"), alt.Y2("high:Q")),
        base.mark_line().encode(across, up, _dash("line", names, _LEGEND)),
        base.mark_point(filled=True).encode(across, up, look),
    ]
    means = _with_deviations(frame.rename(columns={"seeds": "count"}))
    zoom = ["x", "y"] if number else ["y"]
    return _panels(means, "panel", "line", layers, 3, zoom, resolve=_SHARED)


def heatmap(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """A panel for each tensor of a block, blocks down, tasks across; above, all other tensors.

    Args:
        frame: ``frames.coefficients`` of one method in one setting.
    """
    outside = frame[frame["block"] == ""].assign(row=lambda rows: rows["layer"])
    inside = frame[frame["block"] != ""].sort_values("kind", kind="stable")
    # The number of a block; in a residual network with that of its stage.
    inside = inside.assign(row=inside["block"].str.replace(r"^.*?(\d[\d.]*)$", r"\1", regex=True))
    tasks = list(frame["task"].unique())
    across = max(2, min(5, int(7 / (0.5 + 0.12 * len(tasks)))))
    colour = alt.Color(
        "coefficient:Q", scale=heat(frame["coefficient"].min(), frame["coefficient"].max())
    )

    def cells(rows: pd.DataFrame, title: str | None) -> Any:
        names = list(rows["row"].unique())
        columns = ["part", "row", "layer", "task", "coefficient"]
        step = min(CELL, MAP / len(names)) if title else CELL
        down = alt.Axis(labelOverlap="parity", ticks=False, domain=False, labelPadding=3)
        return (
            alt.Chart(_data(rows[columns]), height=alt.Step(step))
            .mark_rect()
            .encode(
                alt.X(
                    "task:N",
                    sort=tasks,
                    title=None,
                    axis=alt.Axis(labelAngle=-90, domain=False, ticks=False),
                ),
                alt.Y("row:N", sort=names, title=title, axis=down),
                colour,
                tooltip=["layer:N", "task:N", alt.Tooltip("coefficient:Q", format=".4~g")],
            )
        )

    maps: list[Any] = [cells(outside, None)] if len(outside) else []
    if len(inside):
        parts = list(inside["part"].unique())
        across = min(across, len(parts))
        facet = alt.Facet("part:N", sort=parts, title=None)
        maps.append(cells(inside, "block").facet(facet, columns=across, spacing=8))
    return laid_out(alt.vconcat(*maps), across if len(inside) else 1, least=600)


def depth(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """One panel for each kind of tensor, one line a task: mean over the kind's tensors of a block.

    Args:
        frame: as for ``heatmap``; tensors outside of blocks are left out.
    """
    means = by_depth(frame)
    tasks = list(means["task"].unique())
    tooltip = [
        *("kind:N", "task:N"),
        alt.Tooltip("depth:Q", title="block"),
        alt.Tooltip("coefficient:Q", format=".4~g"),
    ]
    across = alt.X("depth:Q", title="block", axis=_WHOLE).scale(nice=False)
    up = alt.Y("coefficient:Q").scale(zero=False, nice=False, padding=5)
    layers = [
        _lines("task", tasks).mark_line().encode(across, up, _dash("task", tasks, _LINES)),
        _under_the_pointer(tooltip).encode(across, up),
    ]
    return _panels(means, "kind", "task", layers, 3, resolve=_SHARED)


def learning_curves(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """One panel a method, one line a seed: every step faint, the running mean above it.

    Args:
        frame: ``frames.learning_curves`` of one quantity in one setting.
    """
    quantity = str(frame["quantity"].iloc[0])
    curves = frame.groupby(["title", "seed"], sort=False)["value"]
    named = frame.assign(seed="seed " + frame["seed"].astype(str), mean=curves.transform(smooth))
    seeds = list(named["seed"].unique())
    tooltip = [
        *("title:N", "seed:N", "step:Q"),
        alt.Tooltip("value:Q", title=quantity, format=".4~g"),
        alt.Tooltip("mean:Q", title="running mean", format=".4~g"),
    ]
    base = _lines("seed", seeds)
    step = alt.X("step:Q", axis=_WHOLE).scale(nice=False)
    layers = [
        base.mark_line(strokeWidth=0.5, strokeOpacity=0.3).encode(
            step, alt.Y("value:Q", title=quantity).scale(zero=False)
        ),
        base.mark_line().encode(
            step, alt.Y("mean:Q", title=quantity), _dash("seed", seeds, _LINES)
        ),
        _under_the_pointer(tooltip).encode(step, alt.Y("mean:Q", title=quantity)),
    ]
    columns = ["title", "seed", "step", "value", "mean"]
    note = f"thick: running mean over {WINDOW:.0%} of the steps"
    return _panels(named[columns], "title", "seed", layers, 4, title=note)


def smooth(values: pd.Series) -> pd.Series:
    """Centred running mean."""
    return values.rolling(max(1, round(WINDOW * len(values))), center=True, min_periods=1).mean()


def statistics(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """One panel a statistic: raw value across, coefficient up, one dot a layer and task.

    Args:
        frame: ``frames.statistics`` of one method in one setting.
    """
    kinds, names = list(frame["kind"].unique()), list(frame["statistic"].unique())
    of_name = {name: frame[frame["statistic"] == name] for name in names}
    # A logarithmic scale has no zero to leave out.
    axes: dict[str, dict[str, Any]] = {"log": {"type": "log"}, "linear": {"zero": False}}
    scales = {name: axes[axis_scale(rows)] for name, rows in of_name.items()}
    # Values without a place on their axis are left out of the table, and so have no dot.
    shown = pd.concat([drawn(rows) for rows in of_name.values()])
    keys = ["layer", "task", "kind", "coefficient"]
    wide = shown.pivot(index=keys, columns="statistic", values="value")
    fields = {name: f"value_{number}" for number, name in enumerate(names)}
    data = _data(wide.rename(columns=fields).reset_index())
    picked = alt.selection_point(fields=["kind"], **_PICKED)
    panels = [
        alt.Chart(name=f"panel_{number}")
        .mark_point(size=12 if len(wide) < MANY else 5, strokeWidth=0.6)
        .encode(
            alt.X(f"{fields[name]}:Q", title=name.replace("_", " "))
            .scale(**scales[name], nice=False, padding=4)
            .axis(format="~g", tickCount=4, labelOverlap=True, labelSeparation=6),
            alt.Y("coefficient:Q").scale(zero=False, nice=False, padding=5),
            alt.Color("kind:N", scale=colours(kinds), title=None, legend=_LEGEND),
            alt.Shape("kind:N", scale=shapes(kinds), title=None, legend=_LEGEND),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.05)),
            tooltip=[
                "layer:N",
                "task:N",
                alt.Tooltip(f"{fields[name]}:Q", title=name.replace("_", " "), format=".4~g"),
                alt.Tooltip("coefficient:Q", format=".4~g"),
            ],
        )
        .add_params(_zoom(number, ["x", "y"]), *[picked] * (number == 0))
        for number, name in enumerate(names)
    ]
    grid = alt.concat(*panels, data=data, columns=3, resolve=_SHARED)
    return laid_out(grid, min(3, len(names)), kinds)


def cosine_matrix(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Tasks down and across, cosines in the cells.

    Args:
        frame: ``frames.cosines`` of one setting.
    """
    tasks = list(frame["task"].unique())
    value = alt.Tooltip("cosine:Q", format=".4f")
    base = alt.Chart(_data(frame[["task", "other", "cosine"]])).encode(
        alt.X("other:N", sort=tasks, title=None, axis=alt.Axis(labelAngle=-90)),
        alt.Y("task:N", sort=tasks, title=None),
        tooltip=["task:N", "other:N", value],
    )
    shade = alt.condition("abs(datum.cosine) > 0.6", alt.value("white"), alt.value("black"))
    title = "cosine of task vectors"
    layered = alt.layer(
        base.mark_rect().encode(alt.Color("cosine:Q", scale=heat(-1.0, 1.0), title=title)),
        base.mark_text().encode(alt.Text("cosine:Q", format=".2f"), color=shade),
    )
    # As many as fit a page, each wide enough for its number.
    side = alt.Step(max(NUMBER[0], min(NUMBER[1], 380 / len(tasks))))
    return laid_out(layered.properties(width=side, height=side))


def _lines(
    group: str, names: Sequence[str], tooltip: Sequence[Any] = (), legend: alt.Legend = _LINES
) -> alt.Chart:
    """Marks that a column tells apart by colour, for ``_panels``."""
    return alt.Chart().encode(
        color=alt.Color(f"{group}:N", scale=colours(names), title=None, legend=legend),
        opacity=alt.condition(
            alt.selection_point(fields=[group], **_PICKED), alt.value(1), alt.value(0.1)
        ),
        tooltip=[f"{group}:N", *tooltip],
    )


def _dash(group: str, names: Sequence[str], legend: alt.Legend) -> alt.StrokeDash:
    return alt.StrokeDash(f"{group}:N", scale=dashes(names), title=None, legend=legend)


def _under_the_pointer(tooltip: Sequence[Any]) -> alt.Chart:
    """Invisible points that show the numbers of a line: a line itself has only its first."""
    points = alt.Chart().mark_point(size=50, fillOpacity=0, strokeOpacity=0)
    shown: alt.Chart = points.encode(tooltip=tooltip).transform_filter(f"datum && {POINTER}")
    return shown


def _panels(
    frame: pd.DataFrame,
    panel: str,
    group: str,
    layers: Sequence[alt.Chart],
    columns: int,
    zoom: Sequence[Any] = ("x", "y"),
    **of_all: Any,
) -> alt.TopLevelMixin:
    """A panel for each value of a column, with these layers in each.

    Args:
        frame: the data of all.
        panel: column that tells panels apart.
        group: column that tells lines apart.
        layers: of ``_lines``.
        columns: panels in a row at most.
        zoom: channels whose scales move and zoom; those of numbers alone can.
        of_all: properties of the whole, such as ``resolve``.
    """
    values = list(frame[panel].unique())
    columns = min(columns, len(values))
    picked = alt.selection_point(fields=[group], **_PICKED)
    panels = []
    for number, value in enumerate(values):
        data = _data(frame[frame[panel] == value])
        made = alt.layer(*layers, data=data, name=f"panel_{number}")
        if value:
            lines = folded(value, PAGE_CHARACTERS // columns - 4)
            made = made.properties(title=alt.TitleParams(lines, anchor="middle", frame="group"))
        # The first panel's selection holds in all.
        panels.append(made.add_params(_zoom(number, zoom), *[picked] * (number == 0)))
    grid = alt.concat(*panels, columns=columns, **of_all)
    # Paper has no pointer; ``style.printed`` turns the parameter off.
    names = list(frame[group].unique())
    return laid_out(grid.add_params(alt.param(POINTER, value=True)), columns, names)


def _zoom(number: int, encodings: Sequence[Any]) -> alt.Parameter:
    """A panel is moved with the mouse, and zoomed with its wheel while Shift is held."""
    return alt.selection_interval(
        name=f"zoom_{number}",
        bind="scales",
        encodings=list(encodings),
        translate="[mousedown, window:mouseup] > window:mousemove!",
        zoom="wheel![event.shiftKey]",
    )


def _with_deviations(means: pd.DataFrame) -> pd.DataFrame:
    """The table with ``low``, ``high`` and ``text`` in place of ``std`` and ``count``."""
    deviation = means["std"].fillna(0.0)
    text = [
        f"{mean:.2f} ± {std:.2f} ({seeds} seeds)" if seeds > 1 else f"{mean:.2f}"
        for mean, std, seeds in zip(means["mean"], deviation, means["count"], strict=True)
    ]
    ends = {"low": means["mean"] - deviation, "high": means["mean"] + deviation}
    return means.drop(columns=["std", "count"]).assign(**ends, text=text)


def _data(frame: pd.DataFrame) -> pd.DataFrame:
    """The table that a chart carries: numbers have 6 digits."""
    shown = frame.copy()
    for name in frame.select_dtypes("float"):
        shown[name] = [float(f"{value:.6g}") for value in frame[name]]
    return shown
