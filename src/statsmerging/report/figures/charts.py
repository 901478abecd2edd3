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
from statsmerging.report.figures.cost import cost
from statsmerging.report.figures.parts import (
    LEGEND,
    LINES,
    PICKED,
    SHARED,
    WHOLE,
    dash,
    data_of,
    deviation_note,
    laid_out,
    lines_of,
    panels,
    under_the_pointer,
    with_deviations,
    zoom_of,
)
from statsmerging.report.figures.ranks import ranks
from statsmerging.report.figures.style import colours, heat, shapes
from statsmerging.report.frames import (
    axis_scale,
    best_methods,
    by_depth,
    by_position,
    drawn,
    over_repetitions,
)
from statsmerging.report.series import LABELS
from statsmerging.runs.results import BOUND_TITLES, BOUNDS

#: Methods of one dot plot on paper; more could not be told apart.
SHOWN = 8

#: Heights in points: of a row of dots at least, of each method in it, of a cell of a map, and of
#: a map of many blocks.
ROW, METHOD, CELL, MAP = 18, 3, 9, 130

#: Axis of singular directions: i counts them from 0, r is their number.
POSITION = "i / r, largest σ first"

#: Side of a cell that holds a number, at least and at most, in points.
NUMBER = (18, 30)

#: Of more layers and tasks, the dots of a statistic are smaller.
MANY = 2000

#: Steps of the running mean of a learning curve, as a share of all.
WINDOW = 0.05


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
        case "cost":
            made = cost(frame)
        case "ranks":
            made = ranks(frame)
        case "severity" | "tasks" | "images":
            made = against(frame, LABELS[drawing.kind])
        case "heatmap":
            made = heatmap(frame)
        case "depth":
            made = depth(frame)
        case "directions":
            made = directions(frame)
        case "positions":
            made = positions(frame)
        case "learning_curves":
            made = learning_curves(frame)
        case "statistics":
            made = statistics(frame)
        case "cosines":
            made = cosine_matrix(frame)
    return made.properties(description=printable(drawing.title))


def dots(frame: pd.DataFrame, most: int | None = None) -> alt.TopLevelMixin:
    """Tasks as rows, methods as markers with their deviations; bounds as upright bars.

    Args:
        frame: ``frames.accuracies`` in one setting.
        most: methods to show; None: all.
    """
    methods = frame.loc[~frame["method"].isin(BOUNDS), "method"].nunique()
    notes: list[str] = []
    if most is not None and methods > most:
        frame = best_methods(frame, most)
        notes.append(f"{most} of {methods} methods: our own and the best on average")
    seen = frame["seen"].astype(bool)
    named = frame.assign(task=frame["task"].where(seen, "unseen: " + frame["task"]))
    spreads = over_repetitions(named, ["title", "task"], "accuracy")
    means = with_deviations(spreads)
    merged = [name for name in means["title"].unique() if name not in BOUND_TITLES.values()]
    # Bounds have no bars.
    notes += filter(None, [deviation_note(spreads[spreads["title"].isin(merged)])])
    bounds = [name for name in BOUND_TITLES.values() if name in set(means["title"])]
    picked = alt.selection_point(fields=["title"], **PICKED)
    base = alt.Chart().encode(
        y=alt.Y("task:N", sort=list(means["task"].unique()), title=None).scale(paddingInner=0.3),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
        color=alt.Color("title:N", scale=colours([*bounds, *merged]), title=None, legend=LEGEND),
        tooltip=["title:N", "task:N", alt.Tooltip("text:N", title="accuracy, %")],
    )
    axis = alt.X("mean:Q", title="top-1 accuracy, %").scale(zero=False, nice=False, padding=8)
    look = alt.Shape("title:N", scale=shapes([*bounds, *merged]), title=None, legend=LEGEND)
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
    layered = alt.layer(*layers, data=data_of(means), height=step, title=notes or "")
    layered = layered.add_params(picked, zoom_of(0, ["x"]))
    return laid_out(layered, 1, [*bounds, *merged])


def against(frame: pd.DataFrame, label: str) -> alt.TopLevelMixin:
    """Average accuracy against ``x``: one panel for each kind of corruption, one line a method.

    Args:
        frame: a table of ``report.series`` for one problem.
        label: meaning of ``x``.
    """
    number = pd.api.types.is_numeric_dtype(frame["x"])
    across = (
        alt.X("x:Q", title=label, axis=WHOLE).scale(zero=False, nice=False, padding=6)
        if number
        else alt.X("x:O", title=label, sort=list(frame["x"].unique()), axis=alt.Axis(labelAngle=0))
    )
    names = [name for name in frame["line"].unique() if name not in BOUND_TITLES.values()]
    names += [name for name in BOUND_TITLES.values() if name in set(frame["line"])]
    base = lines_of(
        "line",
        names,
        ["panel:N", alt.Tooltip("x:N", title=label), alt.Tooltip("text:N", title="accuracy, %")],
        LEGEND,
    )
    up = alt.Y("mean:Q", title="average accuracy, %").scale(zero=False, nice=False, padding=6)
    look = alt.Shape("line:N", scale=shapes(names), title=None, legend=LEGEND)
    layers = [
        base.mark_rule().encode(across, alt.Y("low:Q"), alt.Y2("high:Q")),
        base.mark_line().encode(across, up, dash("line", names, LEGEND)),
        base.mark_point(filled=True).encode(across, up, look),
    ]
    zoom = ["x", "y"] if number else ["y"]
    note = deviation_note(frame)
    means = with_deviations(frame)
    return panels(means, "panel", "line", layers, 3, zoom, resolve=SHARED, title=note)


def heatmap(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """A panel for each tensor of a block, blocks down, tasks across; above, all other tensors.

    Args:
        frame: ``frames.coefficients`` of one method in one setting.
    """
    tasks = list(frame["task"].unique())
    axis = alt.Axis(labelAngle=-90, domain=False, ticks=False)
    across = alt.X("task:N", sort=tasks, title=None, axis=axis)
    most = max(2, min(5, int(7 / (0.5 + 0.12 * len(tasks)))))
    return _maps(frame, [across], ["task"], ["task:N"], most)


def directions(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """A panel for each matrix of a block, blocks down, its singular directions across.

    The largest singular value stands on the left; a cell is a mean over tasks.

    Args:
        frame: ``frames.directions`` of one method in one setting.
    """
    keys = ["layer", "block", "part", "kind", "start", "end"]
    means = frame.groupby(keys, sort=False)["coefficient"].mean().reset_index()
    ends = zip(means["start"], means["end"], strict=True)
    means["position"] = [f"{start:.0%} to {end:.0%}" for start, end in ends]
    axis = alt.Axis(values=[0, 0.5, 1], format="~g", grid=False, domain=False)
    across = alt.X("start:Q", title=POSITION, axis=axis).scale(domain=[0, 1])
    columns = ["start", "end", "position"]
    return _maps(means, [across, alt.X2("end:Q")], columns, ["position:N"], 4)


def _maps(
    frame: pd.DataFrame,
    across: Sequence[Any],
    columns: Sequence[str],
    tooltip: Sequence[str],
    most: int,
) -> alt.TopLevelMixin:
    """Coefficients as colours: a panel for each tensor of a block, above it all other tensors.

    Args:
        frame: columns ``layer``, ``block``, ``part``, ``kind``, ``coefficient``, and others.
        across: what places a cell in its row.
        columns: the others.
        tooltip: those that a cell tells.
        most: panels in a row at most.
    """
    outside = frame[frame["block"] == ""].assign(row=lambda rows: rows["layer"])
    inside = frame[frame["block"] != ""].sort_values("kind", kind="stable")
    # The number of a block; in a residual network with that of its stage.
    inside = inside.assign(row=inside["block"].str.replace(r"^.*?(\d[\d.]*)$", r"\1", regex=True))
    colour = alt.Color(
        "coefficient:Q", scale=heat(frame["coefficient"].min(), frame["coefficient"].max())
    )

    def cells(rows: pd.DataFrame, title: str | None) -> Any:
        names = list(rows["row"].unique())
        step = min(CELL, MAP / len(names)) if title else CELL
        down = alt.Axis(labelOverlap="parity", ticks=False, domain=False, labelPadding=3)
        shown = rows[["part", "row", "layer", *columns, "coefficient"]]
        return (
            alt.Chart(data_of(shown), height=alt.Step(step))
            .mark_rect()
            .encode(
                *across,
                alt.Y("row:N", sort=names, title=title, axis=down),
                colour,
                tooltip=["layer:N", *tooltip, alt.Tooltip("coefficient:Q", format=".4~g")],
            )
        )

    maps: list[Any] = [cells(outside, None)] if len(outside) else []
    if len(inside):
        parts = list(inside["part"].unique())
        most = min(most, len(parts))
        facet = alt.Facet("part:N", sort=parts, title=None)
        maps.append(cells(inside, "block").facet(facet, columns=most, spacing=8))
    return laid_out(alt.vconcat(*maps), most if len(inside) else 1, least=600)


def depth(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """One panel for each kind of tensor, one line a task: mean over the kind's tensors of a block.

    Args:
        frame: as for ``heatmap``; tensors outside of blocks are left out.
    """
    across = alt.X("depth:Q", title="block", axis=WHOLE).scale(nice=False)
    return _task_lines(by_depth(frame), across, "block")


def positions(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """One panel for each kind of tensor, one line a task: mean over directions of a position.

    Args:
        frame: as for ``directions``.
    """
    axis = alt.Axis(values=[0, 0.5, 1], format="~g")
    across = alt.X("position:Q", title=POSITION, axis=axis).scale(domain=[0, 1])
    return _task_lines(by_position(frame), across, POSITION)


def _task_lines(means: pd.DataFrame, across: alt.X, meaning: str) -> alt.TopLevelMixin:
    """Mean coefficients: one panel for each kind of tensor, one line a task.

    Args:
        means: columns ``kind``, ``task``, ``coefficient``, and that of ``across``.
        meaning: of the latter.
    """
    tasks = list(means["task"].unique())
    tooltip = [
        *("kind:N", "task:N"),
        alt.Tooltip(across.shorthand, title=meaning, format=".3~g"),
        alt.Tooltip("coefficient:Q", format=".4~g"),
    ]
    up = alt.Y("coefficient:Q").scale(zero=False, nice=False, padding=5)
    layers = [
        lines_of("task", tasks).mark_line().encode(across, up, dash("task", tasks, LINES)),
        under_the_pointer(tooltip).encode(across, up),
    ]
    return panels(means, "kind", "task", layers, 3, resolve=SHARED)


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
    base = lines_of("seed", seeds)
    step = alt.X("step:Q", axis=WHOLE).scale(nice=False)
    layers = [
        base.mark_line(strokeWidth=0.5, strokeOpacity=0.3).encode(
            step, alt.Y("value:Q", title=quantity).scale(zero=False)
        ),
        base.mark_line().encode(step, alt.Y("mean:Q", title=quantity), dash("seed", seeds, LINES)),
        under_the_pointer(tooltip).encode(step, alt.Y("mean:Q", title=quantity)),
    ]
    columns = ["title", "seed", "step", "value", "mean"]
    note = f"thick: running mean over {WINDOW:.0%} of the steps"
    return panels(named[columns], "title", "seed", layers, 4, title=note)


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
    data = data_of(wide.rename(columns=fields).reset_index())
    picked = alt.selection_point(fields=["kind"], **PICKED)
    made = [
        alt.Chart(name=f"panel_{number}")
        .mark_point(size=12 if len(wide) < MANY else 5, strokeWidth=0.6)
        .encode(
            alt.X(f"{fields[name]}:Q", title=name.replace("_", " "))
            .scale(**scales[name], nice=False, padding=4)
            .axis(format="~g", tickCount=4, labelOverlap=True, labelSeparation=6),
            alt.Y("coefficient:Q").scale(zero=False, nice=False, padding=5),
            alt.Color("kind:N", scale=colours(kinds), title=None, legend=LEGEND),
            alt.Shape("kind:N", scale=shapes(kinds), title=None, legend=LEGEND),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.05)),
            tooltip=[
                "layer:N",
                "task:N",
                alt.Tooltip(f"{fields[name]}:Q", title=name.replace("_", " "), format=".4~g"),
                alt.Tooltip("coefficient:Q", format=".4~g"),
            ],
        )
        .add_params(zoom_of(number, ["x", "y"]), *[picked] * (number == 0))
        for number, name in enumerate(names)
    ]
    grid = alt.concat(*made, data=data, columns=3, resolve=SHARED)
    return laid_out(grid, min(3, len(names)), kinds)


def cosine_matrix(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Tasks down and across, cosines in the cells.

    Args:
        frame: ``frames.cosines`` of one setting.
    """
    tasks = list(frame["task"].unique())
    value = alt.Tooltip("cosine:Q", format=".4f")
    base = alt.Chart(data_of(frame[["task", "other", "cosine"]])).encode(
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
    # As many as fit a column, each wide enough for its number.
    side = alt.Step(max(NUMBER[0], min(NUMBER[1], 180 / len(tasks))))
    return laid_out(layered.properties(width=side, height=side))
