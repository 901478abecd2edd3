"""Every value that an experiment sweeps over is valid, wherever the experiment runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from statsmerging.data import embedded
from tests.app.test_configs import composed
from tests.conftest import ROOT

#: Where an experiment may run, besides the embedded suite: experiments named before it.
PLACES = ("", "mini_eight", "clip_eight")


def sweeping() -> dict[str, dict[str, str]]:
    """Name of every experiment that is a sweep → what it sweeps over."""
    found = {}
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        if "sweeper:" in path.read_text():
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                config = compose(
                    "config", overrides=[f"experiment={path.stem}"], return_hydra_config=True
                )
            assert str(config.hydra.mode) == "RunMode.MULTIRUN", path
            assert path.stem in config.hydra.sweep.dir, path
            found[path.stem] = dict(config.hydra.sweeper.params)
    return found


def values(key: str, swept: str) -> list[str]:
    """``key=value`` for every value, as Hydra's own sweeper takes the text apart."""
    overrides = OverridesParser.create().parse_overrides([f"{key}={swept}"])
    return [job[0] for job in BasicSweeper.split_arguments(overrides, None)[0]]


SWEEPS = sweeping()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_is_valid(name: str, place: str, tmp_path: Path) -> None:
    where = [f"experiment=[{place}{',' if place else ''}{name}]"]
    where += [f"suite.root={tmp_path}"] if place == "mini_eight" else []
    for key, swept in SWEEPS[name].items():
        # One place is enough for values that do not depend on it.
        for value in values(key, swept) if not place or key.startswith("suite.") else []:
            composed(*where, value)
    composed(*where)


def test_every_experiment_has_three_seeds_and_stands_in_make_results() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name, params in SWEEPS.items():
        seeds = {str(params[key]) for key in ("seed", "zoo.seed") if key in params}
        assert seeds - {"0"} == {"0,1,2"}, name
        # Others need a file that only a user can name: a foreign expert, or a method.
        assert name in makefile or name.startswith(("heterogeneous_mini_eight", "check_a_method"))


@pytest.mark.parametrize("place", PLACES)
def test_generalisation_splits_name_tasks(place: str, tmp_path: Path) -> None:
    overrides = [f"experiment={place}"] if place else []
    overrides += [f"suite.root={tmp_path}"] if place == "mini_eight" else []
    suite = composed(*overrides).suite
    seen = set(embedded.SEEN if suite.tasks is None else suite.tasks)
    assert set(suite.splits) == {"first", "second"}
    assert all(set(held_out) < seen for held_out in suite.splits.values())
