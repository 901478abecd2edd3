"""The page of a report as text: complete, alone, and no name in it is markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from statsmerging.report.drawings import drawings
from statsmerging.report.figures.charts import chart
from statsmerging.report.figures.style import spec_of
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.page.html import report_page
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import HOSTILE, WriteRun


class Page(HTMLParser):
    """Tags with their attributes, and the text of every script that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def content(self) -> Any:
        return json.loads(self.scripts["content"])


@pytest.fixture
def page(sweep_runs: Path) -> Page:
    groups = runs_by_setting(sweep_runs)
    spec = spec_of(chart(next(iter(drawings(groups)))))
    return Page(report_page(groups, sweep_runs, {HOSTILE: spec}))


def test_names_stay_text(page: Page) -> None:
    assert not [tag for tag, _ in page.tags if tag == "b"]
    runs = {run["name"]: run for run in page.content()["runs"]}
    assert sorted(runs) == ["<-script><b>bold<!--", "hard-1", "soft-0", "soft-1"]
    assert runs["soft-0"]["config"]["note"] == HOSTILE
    assert runs["soft-0"]["warnings"] == [HOSTILE]
    assert [figure["title"] for figure in json.loads(page.scripts["figure-data"])] == [HOSTILE]


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert addresses
    assert all(str(address).startswith("#") for address in addresses)
    assert not {"link", "iframe", "img", "object", "base"} & {tag for tag, _ in page.tags}
    policies = [
        str(attributes["content"])
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none';")
    assert "http" not in policies[0]


def test_every_section_has_its_heading(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    sections = [attributes for tag, attributes in page.tags if tag == "section"]
    labelled = [attributes["aria-labelledby"] for attributes in sections if "id" in attributes]
    assert len(labelled) == 6
    assert set(labelled) <= ids
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {str(link).removeprefix("#") for link in links} <= ids


def test_runs_tables_and_commands_are_those_of_the_records(page: Page, sweep_runs: Path) -> None:
    content = page.content()
    assert content["keys"] == ["labels.kind"]
    soft = next(run for run in content["runs"] if run["name"] == "soft-1")
    assert soft["setting"] == {"labels.kind": "soft"}
    assert soft["stamps"] == ["tuned on labels"]
    assert soft["command"] == "python run.py -m labels=hard,soft seed=0,1"
    assert soft["of_sweep"]
    assert soft["reproduce"] == f"statsmerging job=reproduce job.run={sweep_runs / 'soft-1'}"
    assert OmegaConf.create(soft["config_text"]) == soft["config"]
    free = next(method for method in soft["methods"] if method["name"] == "free")
    assert (free["average"], free["accuracy"]["sign_digits"]) == (0.72, pytest.approx(0.67))
    assert [setting["heading"] for setting in content["settings"]] == [
        "labels: hard",
        "labels: soft",
    ]
    *_, (free_row,) = (
        [row for row in section["rows"] if row["labels"][0] == "The free"]
        for section in content["settings"][1]["sections"]
    )
    assert free_row["numbers"][2]["text"] == "71.0 ± 1.4"
    assert len(content["sweeps"]) == 1


def test_only_the_same_problem_has_peers(write_run: WriteRun) -> None:
    """Other experts, or a run that was given labels, are not compared for the best number."""
    averages = {"individual": 0.9, "ties": 0.5}
    for name, family in [("a", "own"), ("b", "own"), ("c", "published"), ("stamped", "own")]:
        runs = write_run(name, averages, zoo={"name": family}, note=name)
    path = runs / "stamped" / "results.json"
    write_json(path, read_json(path) | {"stamps": ["not label-free"]})
    found = {
        run["name"]: method["peers"]
        for run in Page(report_page(runs_by_setting(runs), runs, {})).content()["runs"]
        for method in run["methods"]
        if method["name"] == "ties"
    }
    assert found["a"] == found["b"]
    assert len(set(found.values())) == 3


def test_a_method_has_its_own_warnings_alone(write_run: WriteRun) -> None:
    runs = write_run("a", {"individual": 0.9, "ties": 0.5, "ties_fast": 0.6, "free": 0.7})
    about_all = "the teacher of mnist is unsure"
    told = ["ties sacrifices mnist", "ties_fast: nothing is learned", about_all]
    path = runs / "a" / "results.json"
    write_json(path, read_json(path) | {"warnings": told})
    (run,) = Page(report_page(runs_by_setting(runs), runs, {})).content()["runs"]
    assert run["warnings"] == told
    own = {method["name"]: method["warnings"] for method in run["methods"]}
    assert own == {"individual": [], "ties": told[:1], "ties_fast": told[1:2], "free": []}


def test_a_page_without_figures_has_no_plotting_library(sweep_runs: Path) -> None:
    assert len(report_page(runs_by_setting(sweep_runs), sweep_runs, {})) < 200_000
