"""Tasks, methods and settings of any name: every format shows the name, and nothing else."""

from __future__ import annotations

import csv
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statsmerging.report.card import model_card
from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.charts import chart
from statsmerging.report.figures.style import printed, spec_of
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.page.html import report_page
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.latex import escape as latex_escape
from statsmerging.report.tables.text import escape, markdown, spreadsheet_safe, tidy
from tests.report.conftest import WriteRun, results, typed


def run_on(*tasks: str) -> dict[str, Any]:
    """``results.json`` of tasks with these names."""
    row = {"accuracy": dict.fromkeys(tasks, 0.5), "average": 0.5, "normalised_average": 1.0}
    return results(0, {"individual": 0.9}) | {"methods": {"individual": row, "ties": row}}


def test_no_task_has_the_column_of_another_number() -> None:
    tasks = ("average", "normalised", "agreement", "unseen: x", "task: average", "mnist")
    content = accuracy_content([typed(run_on(*tasks))])
    assert len(set(content.columns)) == len(content.columns) == len(tasks) + 2
    assert content.columns[0] == "task: average"
    assert content.columns[5:] == ("mnist", "average", "normalised")
    frame = tidy([content])
    assert not frame.duplicated(["method", "column"]).any()


def test_headings_of_two_tasks_stay_different() -> None:
    assert accuracy_content([typed(run_on("a_b", "a b", "c_d"))]).headings[:3] == [
        "a_b",
        "a b",
        "c d",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layer_wise · trainer.steps=5", "layer_wise · trainer.steps=5"),
        ("a|b", r"a\|b"),
        ("_a_ __b__", r"\_a\_ \_\_b\_\_"),
        ("*a* `b` ~~c~~", r"\*a\* \`b\` \~\~c\~\~"),
        ("![a](b)", r"!\[a\](b)"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("# a", r"\# a"),
        ("1. a", r"1\. a"),
        ("60.0", "60.0"),
        ("a\n\n# b", r"a\\n\\n# b"),
        ("$x$", r"\$x\$"),
    ],
)
def test_markdown_takes_no_name_for_markup(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_a_markdown_table_has_as_many_cells_whatever_the_names() -> None:
    run = run_on("a|b", "c\nd")
    run["methods"]["ties"]["title"] = "ties | <b>"
    _, _, *rows = markdown(accuracy_content([typed(run)])).splitlines()
    assert {row.replace(r"\|", "").count("|") for row in rows} == {7}


def test_a_model_card_takes_no_name_for_markup() -> None:
    task = "<b>|![a](b)"
    run = run_on(task) | {"merged": "ties", "run_hash": "abc", "suite": "# toy\n# other"}
    run["methods"]["ties"] |= {"title": "<i>Ties", "parameters": {"scale": "<u>"}}
    learned = pd.DataFrame([("all", task, 0.5)], columns=["layer", "task", "coefficient"])
    sizes = {"image_size": 32, "crop_mode": "center", "crop_ratio": 1.0, "interpolation": "bicubic"}
    card = model_card(
        typed(run),
        {"labels": {"kind": "hard"}, "seed": 0},
        learned,
        {**sizes, "mean": [0.5], "std": [0.5]},
        manifest_sha256="0",
        library="timm",
        usage="import timm",
    )
    assert not re.search(r"<[biu]>|!\[|^# other", card, re.MULTILINE)
    assert card.count(escape(task)) == 3  # in the text, the results and the coefficients


def test_a_spreadsheet_computes_nothing() -> None:
    cells = ["=1+1", "+a", "-a", "@a", "-1.5", "+2", "a=b", "\t=1"]
    frame = spreadsheet_safe(pd.DataFrame({"=x": cells, "mean": [-1.0] * len(cells)}))
    header, *rows = csv.reader(StringIO(frame.to_csv(index=False)))
    assert header == ["'=x", "mean"]
    assert [row[0] for row in rows] == ["'=1+1", "'+a", "'-a", "'@a", "-1.5", "+2", "a=b", r"\t=1"]
    assert {row[1] for row in rows} == {"-1.0"}


def test_a_quotation_mark_needs_no_package_of_latex() -> None:
    assert latex_escape('a"b') == r"a\texttt{\char34}b"


def test_figures_draw_names_as_they_are() -> None:
    name = "$\\frac{1$ <b>x</b>"
    frame = pd.DataFrame(
        [("ties", "Ties $x$", "", 0, name, True, 50.0), ("free", "Free", "", 0, name, True, 60.0)],
        columns=["method", "title", "zoo", "seed", "task", "seen", "accuracy"],
    )
    drawing = Drawing("dots", f"Accuracy of {name}", frame)
    assert printed(chart(drawing), drawing.title)["pdf"].startswith(b"%PDF")
    (rows,) = spec_of(chart(drawing))["datasets"].values()
    assert [(row["title"], row["task"]) for row in rows] == [("Ties $x$", name), ("Free", name)]


def test_a_chart_in_the_page_has_names_as_they_are(write_run: WriteRun) -> None:
    runs = write_run("a", {"individual": 0.9, "ties": 0.5})
    name = "<a href='x'>&lt;</script>"
    frame = pd.DataFrame(
        [("ties", name, "", 0, "mnist", True, 50.0)],
        columns=["method", "title", "zoo", "seed", "task", "seen", "accuracy"],
    )
    specs = {"Accuracy": spec_of(chart(Drawing("dots", "Accuracy", frame)))}
    page = report_page(runs_by_setting(runs), runs, specs)
    start = page.index('id="figure-data">') + len('id="figure-data">')
    (figure,) = json.loads(page[start : page.index("</script>", start)])
    ((row,),) = figure["spec"]["datasets"].values()
    assert row["title"] == name


def test_a_page_holds_nothing_invisible(write_run: WriteRun, tmp_path: Path) -> None:
    runs = write_run("a", {"individual": 0.9, "ties": 0.5}, note="\u202eabc\x1b[2J")
    page = report_page(runs_by_setting(runs), runs, {})
    assert r"\\u202eabc\\x1b[2J" in page
    assert r"\u202e" not in page.replace(r"\\u202e", "")
