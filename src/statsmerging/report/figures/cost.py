"""Accuracy against cost: what a point of accuracy is paid with."""

from __future__ import annotations

import altair as alt
import pandas as pd

from statsmerging.report.figures.parts import (
    LEGEND,
    PICKED,
    SHARED,
    data_of,
    deviation_note,
    laid_out,
    with_deviations,
    zoom_of,
)
from statsmerging.report.figures.style import colours, shapes
from statsmerging.report.frames import over_repetitions

#: Panels in a row.
COLUMNS = 2


def cost(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """One panel a quantity: cost across, average accuracy up, one marker a method.

    Scales are logarithmic, near zero linear where a method costs nothing of a quantity.

    Args:
        frame: ``costs.accuracies_and_costs`` in one setting.
    """
    keys = ["quantity", "title"]
    spreads = over_repetitions(frame, keys, "accuracy")
    costs = over_repetitions(frame, keys, "cost")["mean"]  # in the same order
    rows = with_deviations(spreads.assign(cost=costs))
    names = list(rows["title"].unique())
    picked = alt.selection_point(fields=["title"], **PICKED)
    made = []
    for number, (quantity, shown) in enumerate(rows.groupby("quantity", sort=False)):
        base = alt.Chart().encode(
            alt.X("cost:Q", title=str(quantity))
            .scale(type="log" if shown["cost"].min() > 0 else "symlog", nice=False, padding=8)
            .axis(format="~s", tickCount=4, labelOverlap=True, labelSeparation=6),
            color=alt.Color("title:N", scale=colours(names), title=None, legend=LEGEND),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
            tooltip=[
                "title:N",
                alt.Tooltip("cost:Q", title=str(quantity), format=".4~g"),
                alt.Tooltip("text:N", title="average accuracy, %"),
            ],
        )
        look = alt.Shape("title:N", scale=shapes(names), title=None, legend=LEGEND)
        up = alt.Y("mean:Q", title="average accuracy, %").scale(zero=False, nice=False, padding=6)
        layers = [
            base.mark_rule().encode(alt.Y("low:Q"), alt.Y2("high:Q")),
            base.mark_point(filled=True).encode(up, look),
        ]
        panel = alt.layer(*layers, data=data_of(shown), name=f"panel_{number}")
        made.append(panel.add_params(zoom_of(number, ["x", "y"]), *[picked] * (number == 0)))
    columns = min(COLUMNS, len(made))
    note = deviation_note(spreads)
    return laid_out(alt.concat(*made, columns=columns, resolve=SHARED, title=note), columns, names)
