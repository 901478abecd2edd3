"""Tidy tables: what run directories hold, number by number."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pandas as pd
import pytest

from statsmerging.report import frames, series
from statsmerging.report.drawings import DETAILED, drawings
from statsmerging.report.groups import runs_by_setting, setting_text
from statsmerging.report.layers import LayerName, layer_name
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import WriteRun


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("blocks.3.attn.qkv.weight", LayerName("blocks.3", "attn.qkv.weight", "attention")),
        ("visual.transformer.resblocks.0.ln_1.bias", ("ln_1.bias", "normalisation")),
        ("encoder.layers.11.mlp.fc1.weight", ("mlp.fc1.weight", "MLP")),
        (
            "layer2.0.downsample.0.weight",
            LayerName("layer2.0", "downsample.0.weight", "convolution"),
        ),
        ("cls_token", LayerName("", "cls_token", "other")),
        ("all", LayerName("", "all", "other")),
    ],
)
def test_names_of_layers_are_taken_apart(layer: str, expected: LayerName | tuple[str, str]) -> None:
    name = layer_name(layer)
    assert expected in (name, (name.part, name.kind))


def test_a_step_that_was_done_twice_counts_once(learned_run: Path) -> None:
    curves = frames.learning_curves(runs_by_setting(learned_run))
    loss = curves[curves["quantity"] == "loss"]
    assert list(zip(loss["step"], loss["value"], strict=True)) == [
        (0, 0.0),
        (1, 1.0),
        (2, 12.0),
        (3, 13.0),
    ]


def test_coefficients_are_means_over_seeds(learned_run: Path, write_run: WriteRun) -> None:
    write_run("other seed", {"individual": 0.9, "free": 0.6}, seed=1)
    first = pd.read_parquet(learned_run / "learned" / "coefficients.parquet")
    second = first.assign(coefficient=first["coefficient"] + 1)
    second.to_parquet(learned_run / "other seed" / "coefficients.parquet")
    means = frames.coefficients(runs_by_setting(learned_run))
    assert means["coefficient"].tolist() == pytest.approx((first["coefficient"] + 0.5).tolist())
    assert means["layer"].tolist() == first["layer"].tolist()


def test_directions_are_means_over_bins_of_their_position(singular_run: Path) -> None:
    """λ falls by 1/r from one direction to the next: a bin of n directions has their mean."""
    frame = frames.directions(runs_by_setting(singular_run))
    assert not frame["layer"].str.contains("bias").any()
    first = frame[frame["task"] == "mnist"].set_index("layer")
    for layer, bins, directions in (
        ("patch.weight", 4, 1),
        ("blocks.0.attn.weight", 12, 2),
        ("blocks.1.fc.weight", 3, 1),
    ):
        rows = first.loc[layer]
        assert rows["start"].tolist() == pytest.approx([place / bins for place in range(bins)])
        assert (rows["end"] - rows["start"]).tolist() == pytest.approx([1 / bins] * bins)
        offset = (directions - 1) / 2 / (bins * directions)
        assert rows["coefficient"].tolist() == pytest.approx((1 - rows["start"] - offset).tolist())


def test_directions_are_means_over_seeds(singular_run: Path, write_run: WriteRun) -> None:
    one = frames.directions(runs_by_setting(singular_run))
    write_run("other seed", {"individual": 0.9, "free": 0.6}, seed=1)
    first = pd.read_parquet(singular_run / "singular" / "coefficients.parquet")
    second = first.assign(coefficient=first["coefficient"] + 1)
    second.to_parquet(singular_run / "other seed" / "coefficients.parquet")
    both = frames.directions(runs_by_setting(singular_run))
    assert both["coefficient"].tolist() == pytest.approx((one["coefficient"] + 0.5).tolist())


def test_positions_of_a_kind_have_the_bins_of_its_least_layer(singular_run: Path) -> None:
    frame = frames.directions(runs_by_setting(singular_run))
    mixed = frame.assign(kind=frame["kind"].replace("MLP", "attention"))  # r = 24 and r = 3
    means = frames.by_position(mixed)
    attention = means[(means["kind"] == "attention") & (means["task"] == "mnist")]
    assert attention["position"].tolist() == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    # In each third 4 bins of the one, on average 7/48 below its edge, and 1 of the other.
    expected = [1 - third / 3 - 4 / 5 * 7 / 48 for third in range(3)]
    assert attention["coefficient"].tolist() == pytest.approx(expected)


def test_statistics_of_a_layer_are_those_of_its_blocks(learned_run: Path) -> None:
    path = learned_run / "learned" / "coefficients.parquet"
    whole = pd.read_parquet(path)
    pd.concat([whole.assign(layer=whole["layer"] + f"[{i}]") for i in range(3)]).to_parquet(path)
    frame = frames.statistics(runs_by_setting(learned_run))
    assert len(frame) == 3 * len(whole) * 2  # statistics
    assert set(frame["layer"].str[-3:]) == {"[0]", "[1]", "[2]"}


def test_averages_stand_at_their_severity_and_clean_ones_at_zero(corrupted_runs: Path) -> None:
    frame = series.by_severity(runs_by_setting(corrupted_runs))
    ties = frame[frame["line"] == "The ties"]
    assert ties["panel"].unique().tolist() == ["contrast"]
    assert ties["x"].tolist() == [0, 1, 3]
    assert ties["mean"].tolist() == pytest.approx([80, 71, 51])
    assert ties["std"].tolist()[1:] == pytest.approx([sqrt(2)] * 2)  # of two seeds, 2 points apart
    assert ties["over"].tolist() == ["", "2 seeds", "2 seeds"]


def test_learning_images_are_in_order_and_all_comes_last(write_run: WriteRun) -> None:
    for images in (None, 100, 20):
        averages = {"individual": 0.9, "ties": 0.5 if images is None else images / 250}
        runs = write_run(f"images-{images}", averages, learning={"images": images})
    frame = series.by_images(runs_by_setting(runs))
    ties = frame[frame["line"] == "The ties"]
    assert ties["x"].tolist() == ["20", "100", "all"]
    assert ties["mean"].tolist() == pytest.approx([8, 40, 50])


def test_lines_are_told_apart_by_what_differs_if_it_matters(write_run: WriteRun) -> None:
    for granularity, better in (("layer_wise", 0.1), ("task_wise", 0.0)):
        for first in (2, None):
            runs = write_run(
                f"{granularity}-{first}",
                {"individual": 0.9, "ties": 0.5, "free": 0.6 + better},
                suite={"name": "toy", "first": first},
                granularity=granularity,
                method={"free": {"granularity": granularity}, "ties": {}},
            )
            if first is None:
                _add_a_task(runs / f"{granularity}-{first}")
    frame = series.by_tasks(runs_by_setting(runs))
    assert sorted(set(frame["line"])) == [
        "Individual",
        "The free, granularity=layer_wise",
        "The free, granularity=task_wise",
        "The ties",
    ]
    assert frame.loc[frame["line"] == "The ties", "x"].tolist() == [2, 3]


def test_panels_name_the_protocol_where_there_are_several(
    corrupted_runs: Path, write_run: WriteRun
) -> None:
    other = {"kind": "contrast", "severity": 1, "constants": "c", "protocol": "q"}
    write_run("other", {"individual": 0.9, "ties": 0.6}, corruption=other)
    frame = series.by_severity(runs_by_setting(corrupted_runs))
    assert set(frame["panel"]) == {"contrast, p", "contrast, q"}


@pytest.mark.parametrize(("key", "values"), [("tasks", (None, ["mnist"])), ("seed", (0, 7))])
def test_other_corruptions_are_no_deviation_over_seeds(
    write_run: WriteRun, key: str, values: tuple[object, object]
) -> None:
    for place, value in enumerate(values):
        for severity in (1, 2):
            corruption = {"kind": "contrast", "severity": severity, key: value}
            averages = {"individual": 0.9, "ties": 0.6 - 0.4 * place}
            runs = write_run(f"{place}-{severity}", averages, corruption=corruption)
    frame = series.by_severity(runs_by_setting(runs))
    ties = frame[frame["line"].str.startswith("The ties")]
    assert set(ties["panel"]) == {f"contrast, {setting_text(value)}" for value in values}
    assert set(ties["over"]) == {""}


def test_cosines_that_all_settings_share_stand_once(learned_run: Path, write_run: WriteRun) -> None:
    told = {"task_vector_cosines": {"mnist": {"mnist": 1.0}}}
    for name, cosines in [("same", {}), ("other", told)]:
        write_run(name, {"individual": 0.9, "free": 0.6}, labels={"kind": name})
        source = learned_run / ("learned" if name == "same" else name) / "results.json"
        write_json(learned_run / name / "results.json", read_json(source) | cosines)
    first, *others = runs_by_setting(learned_run)
    same = [group for group in others if group.differences.get("labels.kind") == "same"]
    shared = frames.cosines([first, *same])
    assert (len(shared), set(shared["setting"])) == (4, {"toy · vit"})
    assert frames.cosines([first, *others])["setting"].nunique() == 3


def _add_a_task(folder: Path) -> None:
    results = read_json(folder / "results.json")
    for row in results["methods"].values():
        row["accuracy"]["svhn"] = row["average"]
    write_json(folder / "results.json", results)


def test_there_is_a_figure_only_where_there_are_data(learned_run: Path) -> None:
    groups = runs_by_setting(learned_run)
    assert [drawing.kind for drawing in drawings(groups)] == [
        "dots",
        "heatmap",
        "depth",
        "statistics",
        "learning_curves",
        "learning_curves",
        "cosines",
    ]
    for name in ("coefficients.parquet", "statistics.parquet"):
        (learned_run / "learned" / name).unlink()
    left = [drawing.kind for drawing in drawings(runs_by_setting(learned_run))]
    assert left == ["dots", "learning_curves", "learning_curves", "cosines"]


def test_only_a_method_with_directions_has_their_figures(singular_run: Path) -> None:
    titles = {drawing.kind: drawing.title for drawing in drawings(runs_by_setting(singular_run))}
    about = "The free · toy · vit"
    assert titles == {
        "dots": "Accuracy on every task · toy · vit",
        "heatmap": f"Mean coefficients of directions · {about}",
        "depth": f"Mean coefficients of directions against depth · {about}",
        "directions": f"Coefficients of singular directions · {about}",
        "positions": f"Coefficients against position of the direction · {about}",
    }


def labelled_runs(write_run: WriteRun, count: int) -> Path:
    """Settings ``labels.temperature=0``, 1, …, ten points better each time."""
    for temperature in range(count):
        averages = {"individual": 0.94, "free": 0.2 + 0.1 * temperature}
        runs = write_run(f"run-{temperature}", averages, labels={"temperature": temperature})
    return runs


def test_settings_are_compared_the_best_first(write_run: WriteRun) -> None:
    frame = frames.averages(runs_by_setting(labelled_runs(write_run, 3)))
    free = frame[frame["method"] == "free"]
    assert free["task"].tolist() == ["temperature=2", "temperature=1", "temperature=0"]
    assert free["accuracy"].tolist() == pytest.approx([40, 30, 20])


def test_single_settings_of_a_large_sweep_have_no_figures(write_run: WriteRun) -> None:
    few = list(drawings(runs_by_setting(labelled_runs(write_run, DETAILED))))
    assert len(few) == 1 + DETAILED
    many = list(drawings(runs_by_setting(labelled_runs(write_run, DETAILED + 1))))
    assert [drawing.title for drawing in many] == ["Average accuracy by setting · toy · vit"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(["mean", "kind"], "[mean,kind]"), (None, "null"), (True, "true"), (0.9, "0.9"), ("a", "a")],
)
def test_values_stand_as_the_command_line_takes_them(value: object, text: str) -> None:
    assert setting_text(value) == text
