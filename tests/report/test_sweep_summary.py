"""The table at the end of a sweep: which rows of which jobs, and which numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from statsmerging.report.sweep_summary import SweepSummary
from statsmerging.runs.journal import Entry, Journal
from statsmerging.store.files import write_json


def done(journal: Journal, number: int, overrides: str, methods: dict[str, Any]) -> None:
    """Note a job that is done, with these rows in its results."""
    directory = journal.folder.parent / f"run{number}"
    seeds = [item.removeprefix("seed=") for item in overrides.split() if item.startswith("seed=")]
    seed = int(seeds[0]) if seeds else 0
    about = {"suite": "toy", "backbone": "vit", "seed": seed, "stamps": []}
    write_json(directory / "results.json", {**about, "methods": methods})
    journal.write(Entry(number, tuple(overrides.split()), str(directory), "done"))


def row(title: str, average: float, unseen: float | None = None) -> dict[str, Any]:
    beside = {} if unseen is None else {"unseen": {"average": unseen}}
    return {"title": title, "accuracy": {"mnist": average}, "average": average, **beside}


def caption(journal: Journal) -> str:
    """The text beside the title."""
    title, *_ = SweepSummary.of(journal).markdown().splitlines()
    return title.partition(" · ")[2]


def table(journal: Journal) -> list[str]:
    """Heading and rows."""
    lines = SweepSummary.of(journal).markdown().splitlines()
    return [line for line in lines if line.startswith("|") and "---" not in line]


def test_a_transfer_shows_predicted_beside_learned_anew_and_the_unseen_tasks(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "journal")
    for number, seed in enumerate((0, 1)):
        methods = {
            "free_anew": row("Free, learned anew", 0.5, 0.5),
            "stats_merging": row("StatsMerging, predicted", 0.7, 0.4 + seed / 10),
            "stats_merging_anew": row("StatsMerging, learned anew", 0.7, 0.6),
        }
        done(journal, number, f"suite.split=first seed={seed}", methods)
    assert table(journal) == [
        "| setting | jobs done | method | average | unseen average |",
        "|  | 2/2 | StatsMerging, predicted | 70.0 ± 0.0 | 45.0 ± 7.1 |",
        "|  |  | StatsMerging, learned anew | 70.0 | 60.0 |",
    ]


def test_zoos_are_no_settings_and_the_caption_says_what_deviations_are_over(tmp_path: Path) -> None:
    """Zoo 0 has 60 and 64 with its seeds, zoo 1 has 70: 62 and 70."""
    journal = Journal(tmp_path / "journal")
    cells = (("0 seed=0", 0.60), ("0 seed=1", 0.64), ("1 seed=0", 0.70))
    for number, (seeds, average) in enumerate(cells):
        done(journal, number, f"zoo.seed={seeds}", {"free": row("Free", average)})
    assert table(journal) == [
        "| setting | jobs done | method | average |",
        "|  | 3/3 | Free | 66.0 ± 5.7 |",
    ]
    assert "over 2 zoos" in caption(journal)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(SweepSummary.of(journal).table())
    assert "over 2 zoos" in captured.get()


def test_with_one_zoo_deviations_are_over_seeds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for seed in (0, 1):
        done(journal, seed, f"seed={seed}", {"free": row("Free", 0.6 + seed / 50)})
    assert caption(journal) == "± sample standard deviation over 2 seeds of the merging step"


def test_other_jobs_show_their_last_row_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number, steps in enumerate((5, 10)):
        methods = {"ties": row("TIES", 0.5), "stats_merging": row("StatsMerging", 0.6)}
        done(journal, number, f"trainer.steps={steps}", methods)
    assert table(journal) == [
        "| setting | jobs done | method | average |",
        "| trainer.steps=5 | 1/1 | StatsMerging | 60.0 |",
        "| trainer.steps=10 | 1/1 | StatsMerging | 60.0 |",
    ]
