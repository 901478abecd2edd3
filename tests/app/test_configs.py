"""Every choice in conf/ composes, and its values are valid."""

from __future__ import annotations

from dataclasses import fields
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from statsmerging.app.config import Config, parse_config
from statsmerging.merging.methods import methods
from tests.conftest import ROOT

#: What a user must give together with a choice.
NEEDED = {
    "suite=folder": ["suite.root={folder}"],
    "backbone=timm": ["backbone.name=resnet18"],
    "backbone=open_clip": ["backbone.name=ViT-B-32"],
    "zoo=local": ["zoo.root={folder}"],
    "zoo=task_vectors": ["zoo.root={folder}"],
    "heads=files": ["heads.root={folder}"],
    "job=report": ["job.runs={folder}"],
    "job=compare": ["job.runs={folder}"],
    "job=bundle": ["job.runs={folder}", "job.target=bundle.zip"],
    "job=evaluate": ["job.checkpoint={file}"],
    "job=convert": ["job.source={file}", "job.target=x.safetensors"],
    "job=export": ["job.run={folder}", "job.target=exported"],
    "job=reproduce": ["job.run={folder}"],
    "experiment=mini_eight": ["suite.root={folder}"],
}


def choices() -> list[str]:
    groups = [path for path in (ROOT / "conf").iterdir() if path.is_dir()]
    files = chain.from_iterable(sorted(group.glob("*.yaml")) for group in sorted(groups))
    return [
        f"{file.parent.name}={file.stem}"
        for file in files
        if file.parent.name not in ("hydra", "catalogue")
    ]


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return parse_config(values)


@pytest.mark.parametrize("choice", choices())
def test_every_choice_composes(choice: str, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    file.touch()
    needed = [text.format(folder=tmp_path, file=file) for text in NEEDED.get(choice, [])]
    composed(choice, *needed)


@pytest.mark.parametrize(
    ("suite", "seen", "unseen"),
    [
        ("vision8", 8, 0),
        ("vision14", 14, 0),
        ("vision20", 20, 0),
        ("robustness4", 4, 0),
        ("generalisation1", 6, 2),
        ("generalisation2", 6, 2),
    ],
)
def test_published_suites_name_tasks_of_the_catalogue(suite: str, seen: int, unseen: int) -> None:
    config = composed(f"suite={suite}").suite
    assert config.tasks is not None
    assert len(set(config.tasks)) == seen
    assert len(set(config.unseen)) == unseen
    assert not set(config.tasks) & set(config.unseen)
    assert set(config.tasks) | set(config.unseen) <= set(config.catalogue)


def test_prompts_belong_to_tasks_of_the_catalogue() -> None:
    config = composed("suite=vision20", "heads=zero_shot")
    assert config.heads.kind == "zero_shot"
    assert set(config.heads.templates) - {"default"} <= set(config.suite.catalogue)


def method_sections() -> dict[str, dict[str, Any]]:
    names = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
    return composed(f"method=[{','.join(names)}]").method


def test_every_method_has_a_config_with_its_own_defaults() -> None:
    sections = {name: entry for name, entry in method_sections().items() if "learner" not in entry}
    ours = {name for name, kind in methods().items() if kind.__module__.startswith("statsmerging.")}
    assert set(sections) == ours
    for name, entry in sections.items():
        method = methods()[name]
        defaults = {item.name: item.default for item in fields(method)}
        grid = entry.pop("tune", None)
        assert entry == defaults, name
        assert grid == (list(method.tunable.values) if method.tunable else None), name


@pytest.mark.parametrize(
    "name", [f"adamerging_{pp}{kind}_wise" for pp in ("", "pp_") for kind in ("layer", "task")]
)
def test_settings_of_stats_merging_do_not_reach_adamerging(name: str) -> None:
    """Its released code adds to θ₀ with coefficients in [0, 1], from 0.3, at 1e-3."""
    changed = composed(
        f"method=[{name},stats_merging]",
        "link=sigmoid",
        "merge.anchor=none",
        "learner=linear",
        "learner.scale=2",
        "learner.start=0.5",
        "learner.vectors=mean",
        "learner.vector_scale=3",
        "trainer.learning_rate=0.5",
        "learning.episodes=3",
        "granularity=task_wise",
    ).method
    assert changed[name] == composed(f"method=[{name}]").method[name]
    entry = changed[name]
    assert (entry["link"], entry["anchor"], entry["learner"]) == ("clamp", "pretrained", "free")
    assert (entry["start"], entry["scale"], entry["learning_rate"]) == (0.3, 1.0, 1e-3)
    ours = changed["stats_merging"]
    assert (ours["link"], ours["anchor"], ours["start"]) == ("sigmoid", "none", 0.5)


def test_table1_compares_all_methods_but_those_that_are_stamped() -> None:
    compared = set(composed("experiment=table1_eight_tasks").method)
    sections = method_sections()
    labelled = {n for n, entry in sections.items() if entry.get("learner") == "released_code"}
    trained = {n for n, entry in sections.items() if "heads" in entry.get("trains", "")}
    assert compared == set(sections) - labelled - trained


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")])
def test_the_methods_of_an_experiment_can_be_replaced(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    file.touch()
    needed = [
        text.format(folder=tmp_path, file=file) for text in NEEDED.get(f"experiment={name}", [])
    ]
    assert list(composed(f"experiment={name}", "method=[ties]", *needed).method) == ["ties"]


def test_a_value_that_is_needed_says_right_above_what_it_is() -> None:
    """The command line shows that comment to whoever did not give the value."""
    for file in (ROOT / "conf").glob("[!e]*/*.yaml"):  # an experiment says it in its heading
        lines = file.read_text().splitlines()
        for above, line in pairwise(lines):
            assert not line.endswith(": ???") or above.startswith("# "), (file, line)
