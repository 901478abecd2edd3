"""Bundles beside run directories: one setting where images and experts allow it, no run twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from statsmerging.report.files import markdown_page
from statsmerging.report.groups import RunGroup, overruled_runs, runs_by_setting
from statsmerging.report.page.content import page_content
from statsmerging.report.tables.by_setting import sweep_tables
from statsmerging.report.tables.content import BEST
from tests.sent_runs import finished, sent

METHODS = {"ties": 0.5, "free": 0.7}
LESS = {"ties": 0.3, "free": 0.6}
HERE = "/data"


def names(group: RunGroup, folder: Path) -> list[str]:
    """The runs of a group as seen from a folder."""
    return [run.path.relative_to(folder).as_posix() for run in group.members]


def test_a_run_and_its_copy_are_one_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = tmp_path / "runs"
    for seed in (0, 1, 2):
        finished(runs / str(seed), METHODS, seed=seed)
    sent(runs, runs / "own.zip")
    (alone,) = runs_by_setting(runs)
    assert names(alone, runs) == ["0", "1", "2"]
    assert alone.config["suite"]["root"] == "/home/alice/data/mini"
    copies = "own.zip/0, own.zip/1, own.zip/2"
    told = f"3 run(s) in bundles are copies of others here, left out: {copies}"
    assert caplog.messages == [told]

    # What is gone here is read from the bundle, and belongs to the same setting and experts.
    shutil.rmtree(runs / "1")
    (mixed,) = runs_by_setting(runs)
    assert names(mixed, runs) == ["0", "own.zip/1", "2"]
    assert mixed.label == alone.label
    assert [run.results.methods for run in mixed.members] == [
        run.results.methods for run in alone.members
    ]
    assert overruled_runs([mixed]) == []
    assert mixed.paired is not None
    assert mixed.paired.zoos == 1


def test_a_copy_in_two_bundles_is_one_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        finished(tmp_path / "sender" / str(seed), METHODS, seed=seed)
    (tmp_path / "received").mkdir()
    sent(tmp_path / "sender", tmp_path / "received" / "all.zip")
    sent(tmp_path / "sender" / "1", tmp_path / "received" / "second.zip")
    (group,) = runs_by_setting(tmp_path / "received")
    assert names(group, tmp_path / "received") == ["all.zip/0", "all.zip/1"]


def test_other_seeds_and_methods_on_the_same_experts_are_one_setting(tmp_path: Path) -> None:
    """Whatever the folders are called on the two machines."""
    runs = tmp_path / "runs"
    finished(runs / "mine", METHODS, home=HERE)
    finished(tmp_path / "sender" / "a", METHODS, seed=1)
    finished(tmp_path / "sender" / "b", {"tsv_m": 0.8}, seed=2)
    sent(tmp_path / "sender", runs / "theirs.zip", by="A group")
    (group,) = runs_by_setting(runs)
    assert names(group, runs) == ["mine", "theirs.zip/a", "theirs.zip/b"]
    assert group.setting == ()
    assert group.paired is not None
    assert group.paired.pair("tsv_m", "free") is not None
    text = markdown_page({}, [group], {})
    assert text.startswith(
        "- 1 run(s) in run directories here\n"
        "- 2 run(s) from theirs.zip, by A group, statsmerging 0.1.0\n"
    )
    content = page_content([group], runs)
    assert content["keys"] == ["from"]
    shown = {run["name"]: (run["setting"]["from"], run["from"]) for run in content["runs"]}
    about = "theirs.zip, by A group, statsmerging 0.1.0"
    assert shown == {
        "mine": ("here", ""),
        "theirs.zip/a": ("theirs.zip", about),
        "theirs.zip/b": ("theirs.zip", about),
    }
    reproduce = {run["name"]: run["reproduce"] for run in content["runs"]}
    assert reproduce["mine"].startswith("statsmerging job=reproduce ")
    assert reproduce["theirs.zip/a"] == ""
    # All had the same images and experts: the best number is the best of all.
    assert len({method["peers"] for run in content["runs"] for method in run["methods"]}) == 1


@pytest.mark.parametrize(
    ("experts", "images"), [("second", "these"), ("first", "others"), ("second", "others")]
)
def test_other_experts_or_images_of_the_same_config_are_another_setting(
    tmp_path: Path, experts: str, images: str
) -> None:
    """Another machine makes other experts from the same seed; nothing is averaged over both."""
    runs = tmp_path / "runs"
    for seed in (0, 1):
        finished(runs / str(seed), METHODS, seed=seed, home=HERE)
        place = tmp_path / "sender" / str(seed)
        finished(place, LESS, seed=seed, experts=experts, images=images)
    sent(tmp_path / "sender", runs / "theirs.zip")
    mine, theirs = runs_by_setting(runs)
    assert (mine.setting, theirs.setting) == (("from=here",), ("from=theirs.zip",))
    assert names(mine, runs) == ["0", "1"]
    assert names(theirs, runs) == ["theirs.zip/0", "theirs.zip/1"]
    assert overruled_runs([mine, theirs]) == []
    # Each table has its own best row; no row is best of both.
    (sweep,) = sweep_tables([mine, theirs])
    best = {
        row.labels[0] for row in sweep.rows for cell in row.numbers if cell and cell.place == BEST
    }
    assert best == {"here", "theirs.zip"}
    peers = [
        {method["peers"] for method in run["methods"]}
        for run in page_content([mine, theirs], runs)["runs"]
    ]
    assert peers[0] == peers[1]
    assert peers[0].isdisjoint(peers[2])


def test_a_further_zoo_from_others_is_a_further_zoo(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for folder, zoo in ((runs, 0), (tmp_path / "sender", 1)):
        maker = {"kind": "finetuned", "seed": zoo}
        finished(folder / str(zoo), METHODS, experts=f"zoo {zoo}", zoo=maker)
    sent(tmp_path / "sender", runs / "theirs.zip")
    (group,) = runs_by_setting(runs)
    assert [group.zoo_of(run) for run in group.members] == ["0", "1"]


def test_a_repetition_with_other_numbers_is_named(tmp_path: Path) -> None:
    """As it is among run directories; those come first."""
    runs = tmp_path / "runs"
    finished(runs / "mine", {"free": 0.7}, home=HERE)
    finished(tmp_path / "sender" / "a", {"free": 0.2})
    sent(tmp_path / "sender", runs / "theirs.zip")
    groups = runs_by_setting(runs)
    assert len(groups) == 1
    assert overruled_runs(groups) == [runs / "theirs.zip" / "a"]
