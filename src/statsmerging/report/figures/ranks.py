"""Average ranks of methods with their critical difference."""

from __future__ import annotations

import altair as alt
import pandas as pd

from statsmerging.report.figures.parts import data_of, laid_out, zoom_of
from statsmerging.report.figures.style import OKABE_ITO
from statsmerging.report.significance import p_text

#: Height of a row, in points.
ROW = 11


def ranks(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Methods as rows, best first; a bar as long as the critical difference around each rank.

    Two methods differ where their bars do not overlap; the upright line is the end of the best
    method's bar.

    Args:
        frame: ``ranks.average_ranks`` in one setting.
    """
    critical, tasks, p = (frame[name].iloc[0] for name in ("critical", "tasks", "p"))
    ends = {"low": frame["rank"] - critical / 2, "high": frame["rank"] + critical / 2}
    rows = frame.assign(**ends)
    base = alt.Chart().encode(
        alt.Y("title:N", sort=list(rows["title"]), title=None),
        tooltip=["title:N", alt.Tooltip("rank:Q", title="average rank", format=".2f")],
    )
    across = alt.X("rank:Q", title="average rank, 1 is best").scale(zero=False, nice=False)
    best = alt.Chart().mark_rule(strokeDash=[2, 2], color="#888888")
    layers = [
        best.encode(alt.X("min(high):Q", title="")),
        base.mark_rule().encode(alt.X("low:Q"), alt.X2("high:Q")),
        base.mark_point(filled=True, color=OKABE_ITO[0]).encode(across),
    ]
    note = [
        f"over {tasks} tasks; bars: critical difference {critical:.2f} (Nemenyi, 95 %), two "
        "methods differ where theirs do not overlap",
        f"that no method differs from another: p {_related(p_text(p))} (Friedman)",
    ]
    layered = alt.layer(*layers, data=data_of(rows), height={"step": ROW}, title=note)
    return laid_out(layered.add_params(zoom_of(0, ["x"])))


def _related(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"
