"""Every figure of a folder of runs, for print."""

from __future__ import annotations

from matplotlib.figure import Figure

from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.accuracy import against, dots
from statsmerging.report.figures.coefficients import depth, heatmap
from statsmerging.report.figures.learning_curves import learning_curves
from statsmerging.report.figures.statistics import cosine_matrix, statistics
from statsmerging.report.series import LABELS


def printed(drawing: Drawing) -> Figure:
    """The figure; store it with ``style.save``."""
    match drawing.kind:
        case "dots":
            return dots(drawing.frame, drawing.title)
        case "severity" | "tasks" | "images":
            return against(drawing.frame, drawing.title, LABELS[drawing.kind])
        case "heatmap":
            return heatmap(drawing.frame, drawing.title)
        case "depth":
            return depth(drawing.frame, drawing.title)
        case "learning_curves":
            return learning_curves(drawing.frame, drawing.title)
        case "statistics":
            return statistics(drawing.frame, drawing.title)
        case "cosines":
            return cosine_matrix(drawing.frame, drawing.title)
