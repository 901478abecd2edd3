"""Every figure of a folder of runs, for print."""

from __future__ import annotations

from matplotlib.figure import Figure

from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.accuracy import against, dots
from statsmerging.report.figures.coefficients import depth, heatmap
from statsmerging.report.figures.learning_curves import learning_curves
from statsmerging.report.figures.statistics import cosine_matrix, statistics
from statsmerging.report.figures.style import drawn_text
from statsmerging.report.series import LABELS


def printed(drawing: Drawing) -> Figure:
    """The figure; store it with ``style.save``."""
    frame = drawing.frame.map(lambda cell: drawn_text(cell) if isinstance(cell, str) else cell)
    title = drawn_text(drawing.title)
    match drawing.kind:
        case "dots":
            return dots(frame, title)
        case "severity" | "tasks" | "images":
            return against(frame, title, LABELS[drawing.kind])
        case "heatmap":
            return heatmap(frame, title)
        case "depth":
            return depth(frame, title)
        case "learning_curves":
            return learning_curves(frame, title)
        case "statistics":
            return statistics(frame, title)
        case "cosines":
            return cosine_matrix(frame, title)
