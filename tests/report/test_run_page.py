"""The page of one run: what it shows of the records, as text and without a script."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from statsmerging.app.default_config import default_config
from statsmerging.report.page.run import config_differences, run_page
from statsmerging.report.runs import read_run
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import HOSTILE, LAYERS, WriteRun
from tests.report.test_page import Page


class Cells(HTMLParser):
    """Maps of coefficients: caption → title of every cell, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.maps: list[tuple[str, list[str]]] = []
        self._caption = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "table" and known.get("class") == "map":
            self.maps.append(("", []))
        elif tag == "td" and known.get("title"):
            self.maps[-1][1].append(str(known["title"]))
        self._caption = tag == "caption" and bool(self.maps)

    def handle_data(self, data: str) -> None:
        if self._caption and not self.maps[-1][0]:
            self.maps[-1] = (data, self.maps[-1][1])
        self._caption = False


def page_of(folder: Path, **default: Any) -> str:
    return run_page(read_run(folder), folder.name, "../report.html", default)


def test_coefficients_stand_by_tensor_task_and_depth(learned_run: Path) -> None:
    text = page_of(learned_run / "learned")
    found = dict(Cells(text).maps)
    assert list(found) == ["attn.weight", "fc.bias", "cls_token"]
    layers = [LAYERS[0], LAYERS[2]]
    values = {"mnist": (0.0, 0.4), "sign_digits": (0.1, 0.5)}
    assert found["attn.weight"] == [
        f"{layer} · {task}: {value:.3f}"
        for task, cells in values.items()
        for layer, value in zip(layers, cells, strict=True)
    ]
    assert text.index("attention") < text.index("MLP") < text.index(">other ")


def test_curves_warnings_and_commands_need_no_script(learned_run: Path) -> None:
    text = page_of(learned_run / "learned")
    assert text.count("<polyline points=") == 2  # loss, and norm of the gradient
    assert "0 to 13 in 4 steps" in text
    assert "<strong>Warning:</strong> a task is sacrificed" in text
    assert f"job=reproduce job.run={learned_run / 'learned'}</code>" in text
    tags = Page(text).tags
    assert ("a", {"href": "../report.html"}) in tags
    assert sum("copy" in str(each.get("class")) for tag, each in tags if tag == "button") == 1


def test_names_and_values_of_a_run_stay_text(write_run: WriteRun) -> None:
    runs = write_run("a", {"individual": 0.9, HOSTILE: 0.5}, note=HOSTILE)
    path = runs / "a" / "results.json"
    write_json(path, read_json(path) | {"warnings": [HOSTILE], "stamps": [HOSTILE]})
    text = page_of(runs / "a", note="plain")
    assert not [tag for tag, _ in Page(text).tags if tag in ("b", "img", "link", "iframe")]
    assert text.count("&lt;/script&gt;&lt;b&gt;bold&lt;!--") >= 4


def test_only_what_differs_from_the_default_is_listed() -> None:
    default = {"seed": 0, "labels": {"kind": "hard"}, "cache": "x", "method": {"a": {"s": 1}}}
    own = {
        "seed": 0,
        "labels": {"kind": "soft", "new": [1]},
        "cache": "y",
        "method": {"a": {"s": 2}},
    }
    assert list(config_differences(own, default)) == [
        ("labels.kind", "soft", "hard"),
        ("labels.new", "[1]", "no such key"),
        ("method.a.s", "2", "1"),
    ]
    assert list(config_differences(default, default)) == []
    other = {**default, "method": {"b": {"s": 1}}}
    assert list(config_differences(other, default)) == [("method", "[b]", "[a]")]


def test_the_default_is_what_a_command_without_words_runs() -> None:
    default = default_config()
    assert default["job"]["name"] == "merge"
    assert list(default["method"]) == ["simple_average", "task_arithmetic", "stats_merging"]
    assert "hydra" not in default
