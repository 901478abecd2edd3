"""Printed and interactive figures show the numbers of their tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statsmerging.report import frames, series
from statsmerging.report.drawings import drawings
from statsmerging.report.figures import accuracy, coefficients, statistics
from statsmerging.report.figures.gallery import printed
from statsmerging.report.figures.learning_curves import learning_curves, smooth
from statsmerging.report.figures.style import FORMATS, entitle, panel_title, panels, save
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.interactive import dots, interactive_figures
from statsmerging.report.palette import DIVERGING, SEQUENTIAL, scale


def points(line: Any) -> list[tuple[float, float]]:
    """Of a line, or of the line that error bars belong to."""
    drawn = line.lines[0] if hasattr(line, "lines") else line
    return [(float(x), float(y)) for x, y in drawn.get_xydata()]


def test_a_map_has_a_panel_for_every_tensor_of_a_block(learned_run: Path) -> None:
    frame = frames.coefficients(runs_by_setting(learned_run))
    figure = coefficients.heatmap(frame, "title")
    maps = [axes for axes in figure.axes if axes.images]
    shown = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in maps}
    assert list(shown) == ["", "fc.bias", "attn.weight"]
    values = frame["coefficient"].to_numpy().reshape(5, 2)
    assert np.allclose(shown[""], values[:1])
    assert np.allclose(shown["attn.weight"], values[[1, 3]])
    # Coefficients of both signs: the middle of the colours is 0.
    assert {axes.images[0].get_clim() for axes in maps} == {(-0.7, 0.7)}


def test_maps_centre_at_zero_only_where_something_is_negative() -> None:
    assert scale(-0.5, 0.2) == (DIVERGING, -0.5, 0.5)
    assert scale(0.1, 0.4) == (SEQUENTIAL, 0.0, 0.4)


def test_depth_shows_the_mean_of_each_kind(learned_run: Path) -> None:
    figure = coefficients.depth(frames.coefficients(runs_by_setting(learned_run)), "title")
    attention, mlp = figure.axes
    assert (attention.get_title(), mlp.get_title()) == ("attention", "MLP")
    assert [line.get_label() for line in attention.lines] == ["mnist", "sign_digits"]
    assert np.allclose(points(attention.lines[0]), [(0, 0.0), (1, 0.4)])


def test_a_dot_stands_at_its_accuracy_beside_its_task(corrupted_runs: Path) -> None:
    first, *_ = runs_by_setting(corrupted_runs)
    figure = accuracy.dots(frames.accuracies([first]), "title")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mnist", "sign_digits"]
    assert np.allclose(points(axes.lines[0]), [(95, 0), (85, 1)])
    assert np.allclose(points(axes.containers[0]), [(76, 0), (66, 1)])


def test_interactive_dots_tell_unseen_tasks_and_show_their_range() -> None:
    rows = [("mnist", True, 90.0), ("svhn", False, 40.0)]
    frame = pd.DataFrame(rows, columns=["task", "seen", "accuracy"]).assign(title="The free")
    figure = dots(frame)
    assert list(figure.data[0].y) == ["mnist", "svhn (unseen)"]
    assert list(figure.layout.xaxis.range) == [37.0, 93.0]
    assert figure.layout.scattermode == "group"  # equal numbers cover one another otherwise


def test_names_of_tasks_stand_upright_where_they_would_touch() -> None:
    def rotations(length: int) -> set[float]:
        tasks = [f"{number}".ljust(length, "x") for number in range(8)]
        frame = pd.DataFrame({"task": tasks, "coefficient": 0.1, "layer": "norm.weight"})
        names = {"block": "", "part": "norm.weight", "kind": "other"}
        axes = coefficients.heatmap(frame.assign(**names), "title").axes[0]
        return {label.get_rotation() for label in axes.get_xticklabels()}

    assert rotations(length=5) == {0.0}
    assert rotations(length=12) == {90.0}


def test_a_name_with_a_hyphen_stays_whole() -> None:
    figure, (axes,) = panels(1, across=4, height=2.0)
    panel_title(axes, "AdaMerging, layer-wise", across=4)
    entitle(figure, "x " * 47 + "layer-wise")
    assert axes.get_title() == "AdaMerging,\nlayer-wise"
    assert figure.get_suptitle().endswith("\nlayer-wise")


def test_of_many_methods_the_best_and_our_own_are_drawn() -> None:
    rows = [(f"m{number}", number) for number in range(20)]
    rows += [("individual", 100), ("stats_merging", 0)]
    frame = pd.DataFrame(rows, columns=["method", "accuracy"]).assign(seen=True)
    kept = accuracy.best_methods(frame, count=3)["method"]
    assert kept.tolist() == ["m18", "m19", "individual", "stats_merging"]


def test_lines_over_severity_are_those_of_the_table(corrupted_runs: Path) -> None:
    frame = series.by_severity(runs_by_setting(corrupted_runs))
    figure = accuracy.against(frame, "title", "severity")
    (axes,) = figure.axes
    lines = {str(bars.get_label()): points(bars) for bars in axes.containers}
    assert sorted(lines) == ["Individual", "The ties"]
    assert np.allclose(lines["The ties"], [(0, 80), (1, 71), (3, 51)])


def test_a_curve_has_its_steps_and_its_running_mean(learned_run: Path) -> None:
    frame = frames.learning_curves(runs_by_setting(learned_run))
    figure = learning_curves(frame[frame["quantity"] == "loss"], "title")
    (axes,) = figure.axes
    assert points(axes.lines[0]) == [(0, 0), (1, 1), (2, 12), (3, 13)]
    assert smooth(pd.Series(range(60))).tolist()[:3] == [0.5, 1, 2]  # 5 % of 60 steps: 3


def test_zeros_have_no_place_among_singular_values() -> None:
    rows = [("singular_value_2", value, 0.5, "MLP") for value in (0.0, 1.0)]
    rows += [("mean", value, 0.5, "MLP") for value in (-1.0, 0.0)]
    frame = pd.DataFrame(rows, columns=["statistic", "value", "coefficient", "kind"])
    values, means = statistics.statistics(frame, "title").axes
    assert (values.get_xscale(), means.get_xscale()) == ("log", "linear")
    assert np.asarray(values.collections[0].get_offsets()).tolist() == [[1.0, 0.5]]
    assert np.asarray(means.collections[0].get_offsets()).shape == (2, 2)


def test_cosines_stand_in_their_cells(learned_run: Path) -> None:
    frame = frames.cosines(runs_by_setting(learned_run))
    axes = statistics.cosine_matrix(frame, "title").axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.25", "0.25", "1.00"]


def test_figures_are_stored_for_print_and_for_screens(learned_run: Path, tmp_path: Path) -> None:
    (drawing, *_) = drawings(runs_by_setting(learned_run))
    for name in ("once", "twice"):
        for kind in FORMATS:
            save(printed(drawing), tmp_path / f"{name}.{kind}", kind)
    assert (tmp_path / "once.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "once.png").read_bytes().startswith(b"\x89PNG")
    for ending in ("pdf", "png"):
        once, twice = (tmp_path / f"{name}.{ending}" for name in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes()


def test_the_browser_gets_the_same_figures(learned_run: Path) -> None:
    groups = runs_by_setting(learned_run)
    figures = interactive_figures(drawings(groups))
    assert list(figures) == [drawing.title for drawing in drawings(groups)]
    heatmap = figures["Coefficients · The free · toy · vit"]
    cells = pd.DataFrame(heatmap.data[0].z, heatmap.data[0].y, heatmap.data[0].x)
    frame = frames.coefficients(groups)
    table = frame.pivot(index="layer", columns="task", values="coefficient")
    assert np.allclose(cells.loc[table.index, table.columns], table)
    (loss,) = figures["Learning curves, loss · toy · vit"].data
    assert list(loss.y) == [0, 1, 12, 13]


def test_the_browser_gets_lines_over_severity(corrupted_runs: Path) -> None:
    figure = interactive_figures(drawings(runs_by_setting(corrupted_runs)))[
        "Accuracy against severity of corruption · toy · vit"
    ]
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["The ties"].x) == [0, 1, 3]
    assert list(lines["The ties"].y) == pytest.approx([80, 71, 51])
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
