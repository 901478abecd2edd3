"""Charts show the numbers of their tables, on paper and in the page alike."""

from __future__ import annotations

import base64
import re
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from statsmerging.merging.bank import Coefficient
from statsmerging.report import frames, series
from statsmerging.report.costs import accuracies_and_costs
from statsmerging.report.drawings import Drawing, drawings
from statsmerging.report.figures import charts, pictures, style
from statsmerging.report.figures.charts import chart
from statsmerging.report.figures.cost import cost as figure_of_costs
from statsmerging.report.figures.style import printed, spec_of
from statsmerging.report.groups import runs_by_setting
from statsmerging.runs.layer_tables import write_coefficients

ACCURACY = ["method", "title", "zoo", "seed", "task", "seen", "accuracy"]


def layers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All marks of a chart with their encodings, from the first panel to the last."""
    parts = [part for key in ("concat", "vconcat", "layer") for part in spec.get(key, [])]
    parts += [spec["spec"]] if "spec" in spec else []
    own = [spec] if "mark" in spec else []
    return own + [layer for part in parts for layer in layers(part)]


def fields(layer: dict[str, Any]) -> dict[str, str]:
    """Channel → field."""
    encoding = layer["encoding"].items()
    return {key: value["field"] for key, value in encoding if "field" in value}


def look(layer: dict[str, Any], channel: str) -> dict[str, Any]:
    """Name → colour, shape or dash."""
    scale = layer["encoding"][channel]["scale"]
    return dict(zip(scale["domain"], scale["range"], strict=True))


def table(spec: dict[str, Any], part: dict[str, Any]) -> pd.DataFrame:
    """Data of a part of a chart; those of an only panel belong to the whole."""
    return pd.DataFrame(spec["datasets"][(part if "data" in part else spec)["data"]["name"]])


def dots(rows: list[tuple[Any, ...]], most: int | None = None) -> dict[str, Any]:
    return spec_of(charts.dots(pd.DataFrame(rows, columns=ACCURACY), most))


def test_a_dot_stands_at_its_accuracy_beside_its_task(corrupted_runs: Path) -> None:
    first, *_ = runs_by_setting(corrupted_runs)
    spec = spec_of(charts.dots(frames.accuracies([first])))
    bound, deviation, dot = layers(spec)
    assert fields(dot)["y"] == "task"
    assert fields(dot)["x"] == fields(bound)["x"] == "mean"
    assert (fields(deviation)["x"], fields(deviation)["x2"]) == ("low", "high")
    assert dot["encoding"]["y"]["sort"] == ["mnist", "sign_digits"]
    assert dot["encoding"]["x"]["title"] == "top-1 accuracy, %"
    shown = table(spec, spec).set_index(["title", "task"])["mean"]
    assert shown["Individual"].to_dict() == {"mnist": 95, "sign_digits": 85}
    # Methods of a row stand below one another, bounds across all of it.
    assert fields(dot)["yOffset"] == "title"
    assert "yOffset" not in fields(bound)
    assert look(bound, "shape")["Individual"] == style.BOUND_SHAPE


def test_deviations_are_over_the_seeds() -> None:
    rows = [("ties", "TIES", "", seed, "mnist", True, 70.0 + 2 * seed) for seed in (0, 1)]
    spec = dots([*rows, ("free", "Free", "", 0, "mnist", True, 60.0)])
    ties, free = table(spec, spec).to_dict("records")
    assert (ties["low"], ties["high"]) == pytest.approx((71 - 2**0.5, 71 + 2**0.5), abs=1e-4)
    assert ties["text"] == "71.00 ± 1.41 (2 seeds)"
    assert (free["low"], free["high"], free["text"]) == (60, 60, "60.00")
    assert spec["title"] == ["bars: standard deviation over 2 seeds"]


def test_with_several_zoos_deviations_are_over_them() -> None:
    """Zoo 0 has 70 and 72 with its two seeds, zoo 1 has 75 with one: 71 and 75."""
    cells = (("0", 0, 70.0), ("0", 1, 72.0), ("1", 0, 75.0))
    spec = dots([("ties", "TIES", *repetition, "mnist", True, v) for *repetition, v in cells])
    (ties,) = table(spec, spec).to_dict("records")
    assert (ties["low"], ties["high"]) == pytest.approx((73 - 8**0.5, 73 + 8**0.5), abs=1e-4)
    assert ties["text"] == "73.00 ± 2.83 (2 zoos)"
    assert spec["title"] == ["bars: standard deviation over 2 zoos"]


def test_unseen_tasks_are_marked() -> None:
    cells = (("mnist", True, 90.0), ("svhn", False, 40.0))
    rows = [("free", "Free", "", 0, *cell) for cell in cells]
    assert table(dots(rows), dots(rows))["task"].tolist() == ["mnist", "unseen: svhn"]


def test_of_many_methods_paper_shows_the_best_and_our_own() -> None:
    rows = [(f"m{number}", f"M{number}", "", 0, "mnist", True, number) for number in range(20)]
    rows += [("individual", "Individual", "", 0, "mnist", True, 100)]
    rows += [("stats_merging", "StatsMerging", "", 0, "mnist", True, 0)]
    few, all_of_them = dots(rows, most=3), dots(rows)
    assert set(table(few, few)["title"]) == {"M18", "M19", "Individual", "StatsMerging"}
    assert few["title"] == ["3 of 21 methods: our own and the best on average"]
    assert table(all_of_them, all_of_them)["title"].nunique() == 22


def test_names_differ_by_more_than_their_colour() -> None:
    names = [f"m{number}" for number in range(24)]
    colours, shapes, dashes = (
        scale(names).to_dict()["range"] for scale in (style.colours, style.shapes, style.dashes)
    )
    assert len(set(zip(colours, shapes, strict=True))) == 24
    assert len({(colour, tuple(dash)) for colour, dash in zip(colours, dashes, strict=True)}) == 24


def test_lines_over_severity_are_those_of_the_table(corrupted_runs: Path) -> None:
    frame = series.by_severity(runs_by_setting(corrupted_runs))
    spec = spec_of(charts.against(frame, "severity"))
    (panel,) = spec["concat"]
    deviation, line, dot = layers(panel)
    assert panel["title"]["text"] == ["contrast"]
    assert fields(line) | {"shape": "line"} == fields(dot) | {"strokeDash": "line"}
    assert (fields(deviation)["y"], fields(deviation)["y2"]) == ("low", "high")
    assert line["encoding"]["x"]["axis"]["tickMinStep"] == 1
    rows = table(spec, panel)
    assert sorted(set(rows["line"])) == ["Individual", "The ties"]
    ties = rows[rows["line"] == "The ties"]
    assert ties["x"].tolist() == [0, 1, 3]
    assert ties["mean"].tolist() == pytest.approx([80, 71, 51])
    assert look(line, "strokeDash") == {"The ties": [1, 0], "Individual": [2, 2]}
    assert spec["resolve"] == {"scale": {"y": "shared"}}


def test_numbers_of_images_stand_in_their_order() -> None:
    rows = [("p", "TIES", "", x, 50.0, np.nan, "") for x in ("2", "16", "all")]
    spec = spec_of(charts.against(pd.DataFrame(rows, columns=series.COLUMNS), "images"))
    (panel,) = spec["concat"]
    across = layers(panel)[1]["encoding"]["x"]
    assert (across["type"], across["sort"]) == ("ordinal", ["2", "16", "all"])
    assert "title" not in panel
    assert table(spec, panel)["low"].tolist() == [50.0] * 3


def test_a_map_has_a_panel_for_every_tensor_of_a_block(learned_run: Path) -> None:
    frame = frames.coefficients(runs_by_setting(learned_run))
    spec = spec_of(charts.heatmap(frame))
    outside, inside = spec["vconcat"]
    assert table(spec, outside)["layer"].tolist() == ["cls_token"] * 2
    assert inside["facet"]["sort"] == ["fc.bias", "attn.weight"]
    (cells,) = layers(inside)
    assert {key: fields(cells)[key] for key in ("x", "y", "color")} == {
        "x": "task",
        "y": "row",
        "color": "coefficient",
    }
    assert cells["encoding"]["y"]["sort"] == ["0", "1"]
    shown = table(spec, inside).set_index(["layer", "task"])["coefficient"]
    expected = frame.set_index(["layer", "task"])["coefficient"]
    assert np.allclose(shown, expected[shown.index])
    # Coefficients of both signs: the middle of the colours is 0.
    domains = [layer["encoding"]["color"]["scale"]["domain"] for layer in (outside, cells)]
    assert np.allclose(domains, [[-0.7, 0.7]] * 2)


def test_maps_centre_at_zero_only_where_something_is_negative() -> None:
    signed, positive = style.heat(-0.5, 0.2).to_dict(), style.heat(0.1, 0.4).to_dict()
    assert (signed["scheme"], signed["domain"]) == ("redblue", [-0.5, 0.5])
    assert (positive["scheme"], positive["domain"]) == ("cividis", [0.0, 0.4])


def test_a_map_of_directions_has_matrices_alone_and_means_over_tasks(singular_run: Path) -> None:
    frame = frames.directions(runs_by_setting(singular_run))
    spec = spec_of(charts.directions(frame))
    outside, inside = spec["vconcat"]
    assert inside["facet"]["sort"] == ["fc.weight", "attn.weight"]
    (cells,) = layers(inside)
    assert fields(cells) == {"x": "start", "x2": "end", "y": "row", "color": "coefficient"}
    assert cells["encoding"]["x"]["scale"]["domain"] == [0, 1]
    assert cells["encoding"]["y"]["sort"] == ["0", "1"]
    stem = table(spec, outside)
    assert stem["layer"].unique().tolist() == ["patch.weight"]
    # 1 − i / 4 and 0.5 more for the other task.
    assert stem["coefficient"].tolist() == pytest.approx([1.25, 1.0, 0.75, 0.5])
    assert stem["position"].tolist() == ["0% to 25%", "25% to 50%", "50% to 75%", "75% to 100%"]
    # All are positive, and both maps have one scale.
    domains = [layer["encoding"]["color"]["scale"]["domain"] for layer in (outside, cells)]
    greatest = frame.groupby(["layer", "start"])["coefficient"].mean().max()
    assert np.allclose(domains, [[0, greatest]] * 2)


def test_positions_show_the_mean_of_each_kind_and_task(singular_run: Path) -> None:
    spec = spec_of(charts.positions(frames.directions(runs_by_setting(singular_run))))
    other, attention, mlp = spec["concat"]
    titles = [part["title"]["text"] for part in (other, attention, mlp)]
    assert titles == [["other"], ["attention"], ["MLP"]]
    line, pointer = layers(mlp)
    assert fields(line)["x"] == fields(pointer)["x"] == "position"
    assert list(look(line, "color")) == ["mnist", "sign_digits"]
    rows = table(spec, mlp).query("task == 'sign_digits'")
    expected = [(1 / 6, 1.5), (3 / 6, 1.5 - 1 / 3), (5 / 6, 1.5 - 2 / 3)]
    assert np.allclose(rows[["position", "coefficient"]], expected, atol=1e-5)
    assert len(table(spec, attention)) == 2 * 12


def test_depth_shows_the_mean_of_each_kind(learned_run: Path) -> None:
    spec = spec_of(charts.depth(frames.coefficients(runs_by_setting(learned_run))))
    attention, mlp = spec["concat"]
    assert [part["title"]["text"] for part in (attention, mlp)] == [["attention"], ["MLP"]]
    line, pointer = layers(attention)
    assert fields(line)["x"] == fields(pointer)["x"] == "depth"
    assert list(look(line, "color")) == ["mnist", "sign_digits"]
    rows = table(spec, attention).query("task == 'mnist'")
    assert np.allclose(rows[["depth", "coefficient"]], [(0, 0.0), (1, 0.4)])


def test_a_curve_has_its_steps_and_its_running_mean(learned_run: Path) -> None:
    frame = frames.learning_curves(runs_by_setting(learned_run))
    spec = spec_of(charts.learning_curves(frame[frame["quantity"] == "loss"]))
    (panel,) = spec["concat"]
    raw, mean, _ = layers(panel)
    assert (fields(raw)["y"], fields(mean)["y"]) == ("value", "mean")
    assert raw["mark"]["strokeOpacity"] < 1
    assert table(spec, panel)[["step", "value"]].to_numpy().tolist() == [
        [0, 0],
        [1, 1],
        [2, 12],
        [3, 13],
    ]
    assert "running mean over 5%" in spec["title"]
    assert charts.smooth(pd.Series(range(60))).tolist()[:3] == [0.5, 1, 2]  # 5 % of 60 steps: 3


def test_accuracy_stands_against_every_cost(costed_runs: Path) -> None:
    frame = accuracies_and_costs(runs_by_setting(costed_runs))
    spec = spec_of(figure_of_costs(frame))
    total, memory, forward, parameters = spec["concat"]
    shown = {}
    for panel in (total, memory, forward, parameters):
        deviation, dot = layers(panel)
        assert (fields(dot)["x"], fields(dot)["y"]) == ("cost", "mean")
        assert (fields(deviation)["y"], fields(deviation)["y2"]) == ("low", "high")
        axis = dot["encoding"]["x"]
        rows = table(spec, panel).set_index("title")
        shown[axis["title"]] = (axis["scale"]["type"], rows["cost"].to_dict())
        assert rows["mean"].to_dict() == {"The ties": 50, "The free": 60}
    # A method that takes no passes has a place; means over seeds, bank and scoring apart.
    assert shown == {
        "total, s": ("log", {"The ties": 0.25, "The free": 12.0}),
        "memory, MiB": ("log", {"The ties": 1.0, "The free": 3.0}),
        "forward passes": ("symlog", {"The ties": 0, "The free": 3560}),
        "parameters": ("symlog", {"The ties": 0, "The free": 1264}),
    }


def test_zeros_have_no_place_among_singular_values() -> None:
    rows = [("singular_value_2", layer, layer, 0.5, "MLP") for layer in (0.0, 1.0)]
    rows += [("mean", layer, layer - 1, 0.5, "MLP") for layer in (0.0, 1.0)]
    frame = pd.DataFrame(rows, columns=["statistic", "layer", "value", "coefficient", "kind"])
    spec = spec_of(charts.statistics(frame.assign(task="mnist")))
    values, means = layers(spec)
    assert values["encoding"]["x"]["scale"]["type"] == "log"
    assert "type" not in means["encoding"]["x"]["scale"]
    assert [part["encoding"]["x"]["title"] for part in (values, means)] == [
        "singular value 2",
        "mean",
    ]
    shown = table(spec, spec)
    assert shown[fields(values)["x"]].dropna().tolist() == [1.0]
    assert sorted(shown[fields(means)["x"]]) == [-1.0, 0.0]


def test_cosines_stand_in_their_cells(learned_run: Path) -> None:
    spec = spec_of(charts.cosine_matrix(frames.cosines(runs_by_setting(learned_run))))
    cell, text = layers(spec)
    assert cell["encoding"]["color"]["scale"]["domain"] == [-1.0, 1.0]
    assert text["encoding"]["text"] == {"field": "cosine", "type": "quantitative", "format": ".2f"}
    assert table(spec, spec)["cosine"].tolist() == [1.0, 0.25, 0.25, 1.0]


def test_every_mark_tells_its_numbers(
    learned_run: Path, corrupted_runs: Path, singular_run: Path, costed_runs: Path
) -> None:
    """Every kind has a tooltip; a line, which would tell its first number, has points for it."""
    del corrupted_runs, singular_run, costed_runs  # in the same folder as the other
    kinds = set()
    for folder in ("learned", "singular", "costed-0", "."):
        for drawing in drawings(runs_by_setting(learned_run / folder)):
            kinds.add(drawing.kind)
            told = [
                layer
                for layer in layers(spec_of(chart(drawing)))
                if layer["mark"]["type"] != "line"
            ]
            assert all(len(layer["encoding"].get("tooltip", [])) >= 3 for layer in told), drawing
    assert kinds == {
        *("dots", "cost", "severity", "heatmap", "depth", "directions", "positions"),
        *("learning_curves", "statistics", "cosines"),
    }


def test_a_chart_names_no_address_and_no_theme(learned_run: Path) -> None:
    for drawing in drawings(runs_by_setting(learned_run)):
        assert "http" not in str(spec_of(chart(drawing)))
        assert "config" not in spec_of(chart(drawing))


def test_a_name_with_a_hyphen_stays_whole() -> None:
    assert style.folded("AdaMerging, layer-wise", 21) == ["AdaMerging,", "layer-wise"]


@pytest.mark.parametrize("run", ["learned_run", "singular_run", "costed_runs"])
def test_figures_are_stored_for_print_and_for_screens(
    run: str, request: pytest.FixtureRequest
) -> None:
    for drawing in drawings(runs_by_setting(request.getfixturevalue(run))):
        once, twice = (printed(chart(drawing), drawing.title) for _ in range(2))
        assert once == twice
        assert tuple(once) == style.FORMATS
        assert once["pdf"].startswith(b"%PDF")
        # A font is embedded, and nothing tells of the machine or the time.
        assert b"LiberationSans" in once["pdf"]
        assert b"/FontFile" in once["pdf"]
        assert not re.search(rb"CreationDate|ModDate|/Author|/tmp/|/home/", once["pdf"])
        with Image.open(BytesIO(once["png"])) as picture:
            assert picture.format == "PNG"
            assert picture.info["dpi"] == pytest.approx((style.DPI, style.DPI), abs=0.1)
            if drawing.kind != "cosines":
                several = spec_of(chart(drawing))["usermeta"]["columns"] > 1
                width = (style.PAGE if several else style.COLUMN) / 72
                assert picture.width / style.DPI == pytest.approx(width, abs=0.2)


def test_long_names_fit_the_column() -> None:
    rows = [
        (f"m{number}", f"A method of a rather long name, variant {number}", "", 0, task, True, 50.0)
        for number in range(6)
        for task in ("a task whose name needs a third of the page", "mnist")
    ]
    drawing = Drawing("dots", "Accuracy " + "x " * 60, pd.DataFrame(rows, columns=ACCURACY))
    with Image.open(BytesIO(printed(chart(drawing), drawing.title)["png"])) as picture:
        assert picture.width / style.DPI == pytest.approx(3.4, abs=0.1)


def test_what_only_a_pointer_finds_is_not_on_paper(learned_run: Path) -> None:
    frame = frames.coefficients(runs_by_setting(learned_run))
    chart_of = charts.depth(frame)
    (parameter,) = (p for p in spec_of(chart_of)["params"] if p["name"] == style.POINTER)
    assert parameter["value"] is True
    content = printed(chart_of, "t")["pdf"]
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    # The page begins with a matrix; a circle has four curves.
    page = max((zlib.decompress(it) for it in streams if it[:1] == b"x"), key=len)
    assert b" cm\n" in page
    assert page.count(b" c\n") < 4


def test_every_learned_method_has_a_heat_map(tmp_path: Path) -> None:
    path = tmp_path / "coefficients.parquet"
    names = tuple(f"blocks.{layer}.weight" for layer in range(30))
    tasks = ("mnist", "a_task_of_a_long_name")
    learned = {
        "layer_wise": [Coefficient(name, task, -1.0) for name in names for task in tasks],
        "task_wise": [
            Coefficient("all", task, sign) for task, sign in ((tasks[0], 1.0), (tasks[1], -1.0))
        ],
    }
    write_coefficients(path, learned)
    found = pictures.coefficient_pictures(path)
    assert list(found) == ["coefficients/layer_wise", "coefficients/task_wise"]
    shares = {
        name: [share(picture, red) for red in (True, False)] for name, picture in found.items()
    }
    # The colour bar holds both ends, but of each only a part.
    red, blue = shares["coefficients/layer_wise"]
    assert blue > 10 * red
    red, blue = shares["coefficients/task_wise"]
    assert red == pytest.approx(blue, rel=0.2)


def test_a_method_with_directions_has_a_map_of_them_too(tmp_path: Path) -> None:
    """The leading half of all directions is 1, the other half −1."""
    path = tmp_path / "coefficients.parquet"
    listed = [
        Coefficient(f"blocks.{block}.weight", "mnist", 1.0 if i < 8 else -1.0, i, 1.0)
        for block in range(30)
        for i in range(16)
    ]
    bias = Coefficient("blocks.0.bias", "mnist", 1.0, 0, 1.0)
    plain = [Coefficient("blocks.0.bias", "mnist", 1.0)]
    write_coefficients(path, {"singular_wise": [*listed, bias], "layer_wise": plain})
    found = pictures.coefficient_pictures(path)
    assert list(found) == [
        *("coefficients/singular_wise", "coefficients/layer_wise", "directions/singular_wise")
    ]
    picture = found["directions/singular_wise"]
    red, blue = (share(picture, red) for red in (True, False))
    assert red == pytest.approx(blue, rel=0.2)
    assert red > 0.1


def share(picture: Image.Image, red: bool) -> float:
    """Pixels of the colours at one end of the scale."""
    first, _, last = np.asarray(picture, dtype=int).transpose(2, 0, 1)
    difference = first - last if red else last - first
    return float((difference > 85).mean())


def test_without_coefficients_there_is_no_heat_map(tmp_path: Path) -> None:
    assert pictures.coefficient_pictures(tmp_path / "coefficients.parquet") == {}


def test_a_contact_sheet_has_every_image_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = []
    monkeypatch.setattr(pictures, "printed", lambda made, title: specs.append(spec_of(made)))
    colours = {"warm": ["red", "orange"], "cold": ["blue", "cyan"]}
    rows = {
        label: [Image.new("RGB", (4 + 3 * place, 5), name) for place, name in enumerate(names)]
        for label, names in colours.items()
    }
    pictures.contact_sheet(rows, ["first", "first"])
    (spec,) = specs
    cells = pd.DataFrame(next(iter(spec["datasets"].values())))
    assert cells[["row", "column"]].to_numpy().tolist() == [
        ["warm", 0],
        ["warm", 1],
        ["cold", 0],
        ["cold", 1],
    ]
    given = [image for images in rows.values() for image in images]
    for address, image in zip(cells["image"], given, strict=True):
        content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(BytesIO(content))), np.asarray(image))
    assert spec["encoding"]["y"]["sort"] == ["warm", "cold"]
    # Two columns may have one heading.
    assert spec["encoding"]["x"]["axis"]["labelExpr"] == '["first", "first"][datum.value]'


def test_a_contact_sheet_is_stored_for_print_and_for_screens() -> None:
    image = Image.new("RGB", (8, 8), (250, 10, 10))
    content = pictures.contact_sheet({"row": [image]}, ["column"])
    assert content["pdf"].startswith(b"%PDF")
    with Image.open(BytesIO(content["png"])) as sheet:
        assert (250, 10, 10) in {colour for _, colour in sheet.getcolors(10**6) or []}
