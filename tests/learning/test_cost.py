"""What a row costs: counts against the passes that are really made, and against closed forms."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from statsmerging.learning.cost import (
    SECONDS,
    Expense,
    Meter,
    seconds_before,
)
from statsmerging.learning.data_module import TaskBalancedSampler
from statsmerging.learning.episodes import EpisodePlan
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.trainer import CheckedCheckpoints
from statsmerging.runs.cost import Cost, Measured, Phase
from statsmerging.store.cache import Cache
from tests.conftest import SMALL_VIT, JobRunner
from tests.kills import KilledError, killed_in_step

#: Of ``SMALL_RUN`` and the small suite.
STEPS, EPOCHS, PER_TASK, TASKS, IMAGES = 6, 3, 4, 2, 48
SEEN = STEPS * PER_TASK * TASKS
#: A fifth of the unlabeled images is held out, and tells the agreement.
HELD_OUT = TASKS * 10
ALL = TASKS * IMAGES - HELD_OUT
TESTED = TASKS * IMAGES
WIDTH = SMALL_VIT["embed_dim"]


class Passes:
    """Counts images that pass a whole backbone, forward and backward, in each phase of a row."""

    def __init__(self) -> None:
        #: A row for each scoring: phase → forward and backward passes.
        self.rows: list[dict[str, list[int]]] = [{}]
        self.phase: str | None = None

    def count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if type(module).__name__ != "VisionTransformer" or self.phase is None:
            return
        passes = self.rows[-1].setdefault(self.phase, [0, 0])
        passes[0] += len(output)
        if output.requires_grad:

            def back(_: torch.Tensor) -> None:
                passes[1] += len(output)

            output.register_hook(back)

    def of(self, row: int, *phases: str) -> tuple[int, int]:
        """Forward and backward passes of a row in these phases."""
        found = [self.rows[row].get(phase, [0, 0]) for phase in phases]
        return sum(pair[0] for pair in found), sum(pair[1] for pair in found)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    counted = Passes()
    measure = Meter.phase

    @contextmanager
    def phase(self: Meter, name: Phase, **options: Any) -> Iterator[None]:
        counted.phase = name
        with measure(self, name, **options):
            yield
        counted.phase = None
        if name == "scoring":
            counted.rows.append({})

    monkeypatch.setattr(Meter, "phase", phase)
    hook = register_module_forward_hook(counted.count)
    yield counted
    hook.remove()


@pytest.fixture
def empty_cache(shared_cache: Path, tmp_path: Path, run_job: JobRunner) -> str:
    """A cache with images and experts, and without anything that a method makes."""
    run_job("job=finetune", directory=tmp_path / "zoo")
    made = shutil.ignore_patterns("class_scores", "statistics", "directions")
    return f"cache={shutil.copytree(shared_cache, tmp_path / 'cache', ignore=made)}"


#: Method → images, forward and backward passes, learned parameters (``None``: told by the row).
ONCE: dict[str, tuple[int, int, int, int | None]] = {
    "simple_average": (0, 0, 0, 0),
    "emr": (0, 0, 0, 0),
    "tall_masks": (0, 0, 0, 0),
    "free": (SEEN, ALL + SEEN, SEEN, None),
    "adamerging_task_wise": (SEEN, SEEN, SEEN, TASKS),
    "regmean": (ALL, ALL, 0, 0),
    "regmean_plus_plus": (ALL * SMALL_VIT["depth"], ALL * SMALL_VIT["depth"], 0, 0),
    "featcal": (ALL * SMALL_VIT["depth"], 2 * ALL * SMALL_VIT["depth"], 0, 0),
    "fisher": (ALL, ALL, ALL, 0),
    "surgery": (TASKS * 5 * 16, 2 * ALL, 0, TASKS * 2 * 16 * WIDTH),
    "wemoe": (
        3 * PER_TASK * TASKS,
        3 * PER_TASK * TASKS,
        3 * PER_TASK * TASKS,
        SMALL_VIT["depth"] * (WIDTH * WIDTH + WIDTH + TASKS * WIDTH + TASKS),
    ),
    "twin_merging": (
        2 * ALL,
        ALL,
        0,
        2 * WIDTH * (3 * WIDTH + 6 + TASKS) + TASKS,
    ),
    "released_code": (SEEN, SEEN + EPOCHS * TESTED, SEEN, None),
}


def test_counts_are_the_passes_that_are_made_and_the_closed_forms(
    run_job: JobRunner, passes: Passes, empty_cache: str, tmp_path: Path
) -> None:
    given = ["method.surgery.steps=5", "method.wemoe.steps=3", "method.twin_merging.epochs=2"]
    given += ["method.regmean.tune=null", "method.tall_masks.tune=null"]
    shared = ["threads=1", empty_cache]
    results = run_job(f"method=[{','.join(ONCE)}]", *given, *shared)
    for number, (method, (images, forward, backward, parameters)) in enumerate(ONCE.items()):
        found = results["methods"][method]["cost"]
        counts = (found["images"], found["forward_passes"], found["backward_passes"])
        assert counts == (images, forward, backward), method
        # The labels are made for all; a method that asks no teacher does not count them.
        phases = ("evidence", "learning", "merging", "tuning")
        assert passes.of(number, *phases) == counts[1:], method
        if parameters is not None:
            assert found["parameters"] == parameters, method
    free = results["methods"]["free"]["cost"]["parameters"]
    released = results["methods"]["released_code"]["cost"]["parameters"]
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet").query("method == 'free'")
    layers = table["layer"].nunique()
    assert free == layers * TASKS
    heads = TASKS * (2 * WIDTH + 2)
    assert released == layers * (6 * 256 + 256 + 256 * 256 + 256 + 256 * TASKS + TASKS) + heads

    measured = results["measured"]
    assert measured.keys() == results["methods"].keys() - {"pretrained", "individual"}
    for method, each in measured.items():
        assert {"bank", "scoring"} <= each["seconds"].keys(), method
        assert all(seconds >= 0 for seconds in each["seconds"].values())
        assert all(memory >= 0 for memory in each["memory"].values())
        assert not each["resumed"]
    # Nothing was in the cache but images and experts.
    assert not any(each["cached"] for each in measured.values())
    assert list(measured["simple_average"]["seconds"]) == ["bank", "merging", "scoring"]
    assert list(measured["regmean"]["seconds"]) == ["bank", "evidence", "merging", "scoring"]
    phases_of_learning = ["bank", "statistics", "evidence", "learning", "merging", "scoring"]
    assert list(measured["free"]["seconds"]) == phases_of_learning
    assert "evidence" not in measured["adamerging_task_wise"]["seconds"]
    # The bank is built once, and both learners ask for the same statistics.
    assert len({each["seconds"]["bank"] for each in measured.values()}) == 1
    of_statistics = {
        measured[method]["seconds"]["statistics"] for method in ("free", "adamerging_task_wise")
    }
    assert len(of_statistics) == 1

    # The same run with everything in the cache: the same counts, and it is told.
    again = run_job("method=[free]", *shared, directory=tmp_path / "again")
    assert again["methods"]["free"] == results["methods"]["free"]
    assert {"statistics", "evidence"} <= set(again["measured"]["free"]["cached"])


def test_sharp_steps_pass_twice_and_all_heads_ask_every_teacher(
    run_job: JobRunner, passes: Passes, empty_cache: str
) -> None:
    given = ["trainer.sharpness=0.05", "trainer.accumulate=per_task", "labels.restrict=none"]
    found = run_job("method=[free]", *given, empty_cache)["methods"]["free"]["cost"]
    assert found["images"] == SEEN
    assert found["forward_passes"] == TASKS * ALL + 2 * SEEN
    assert found["backward_passes"] == 2 * SEEN
    assert passes.of(0, "evidence", "learning", "merging") == (TASKS * ALL + 2 * SEEN, 2 * SEEN)


def test_labels_of_its_own_cost_a_method_what_those_of_the_run_would(
    run_job: JobRunner, passes: Passes, empty_cache: str
) -> None:
    rows = run_job("method=[samerging]", "labels=ground_truth", empty_cache)["methods"]
    found = rows["samerging"]["cost"]
    assert found["images"] == SEEN
    assert found["forward_passes"] == ALL + 2 * SEEN
    assert found["backward_passes"] == 2 * SEEN
    assert passes.of(0, "evidence", "learning", "merging") == (ALL + 2 * SEEN, 2 * SEEN)
    assert rows["samerging"]["needs"] == "unlabeled images"


def test_a_grid_costs_all_its_values(run_job: JobRunner, passes: Passes, empty_cache: str) -> None:
    results = run_job(
        "method=[ties,free]",
        "method.ties.tune=[0.2,1.0,0.4]",
        "method.free.tune=[0.01,0.5]",  # the first is the configured one
        empty_cache,
    )
    rows = {method: row["cost"] for method, row in results["methods"].items() if "cost" in row}
    assert rows["ties"] == Cost(images=0).model_dump()
    assert rows["ties_tuned"] == Cost(forward_passes=3 * HELD_OUT).model_dump()
    plain, tuned = rows["free"], rows["free_tuned"]
    assert plain["forward_passes"] == ALL + SEEN
    assert tuned["images"] == tuned["backward_passes"] == 2 * SEEN
    assert tuned["forward_passes"] == ALL + 2 * SEEN + 2 * HELD_OUT
    assert tuned["parameters"] == plain["parameters"]
    # The last row is made of what the one before has learned, one more learning, two agreements.
    forward, backward = passes.of(3, "learning", "tuning")
    assert (forward, backward) == (SEEN + 2 * HELD_OUT, SEEN)
    seconds = {method: each["seconds"] for method, each in results["measured"].items()}
    assert "tuning" not in seconds["free"]
    assert seconds["free_tuned"]["tuning"] > 0
    assert seconds["free_tuned"]["evidence"] == seconds["free"]["evidence"]


def test_images_of_episodes_are_those_of_their_batches() -> None:
    plan = EpisodePlan.drawn(5, 7, seed=3)
    sampler = TaskBalancedSampler([9] * 5, 4, 20, 0, plan.members)
    assert sampler.images(20) == sum(len(batch) for batch in sampler)
    assert sampler.images(20) < TaskBalancedSampler([9] * 5, 4, 20, 0).images(20) == 20 * 4 * 5


def test_a_continued_learning_tells_the_seconds_before_the_kill(
    run_job: JobRunner, tmp_path: Path
) -> None:
    whole = run_job("method=[free]", directory=tmp_path / "whole")
    with killed_in_step(StatsMerging, 4), pytest.raises(KilledError):
        run_job("method=[free]")
    checkpoints = CheckedCheckpoints()
    (path,) = (tmp_path / "run" / "checkpoints").glob("*.ckpt")
    content = checkpoints.load_checkpoint(path)
    assert content[SECONDS] > 0
    checkpoints.save_checkpoint({**content, SECONDS: content[SECONDS] + 1000}, path)

    continued = run_job("method=[free]")
    assert continued["methods"] == whole["methods"]
    told, uninterrupted = (each["measured"]["free"] for each in (continued, whole))
    assert (told["resumed"], uninterrupted["resumed"]) == (True, False)
    assert told["seconds"]["learning"] > 1000 > uninterrupted["seconds"]["learning"]


@pytest.mark.parametrize("seconds", [None, -1.0, math.nan, "long", True])
def test_a_checkpoint_without_seconds_is_told_as_continued(tmp_path: Path, seconds: object) -> None:
    path = tmp_path / "free.ckpt"
    CheckedCheckpoints().save_checkpoint({SECONDS: seconds}, path)
    assert seconds_before(path) == Measured(resumed=True)
    assert seconds_before(None) == Measured()


# ---- measurements


def meter(root: Path) -> Meter:
    return Meter(torch.device("cpu"), Cache(root))


def test_memory_is_what_a_phase_adds_whatever_was_there_before(tmp_path: Path) -> None:
    mebibytes = 2**18  # float32
    kept = torch.ones(64 * mebibytes)
    measure = meter(tmp_path)
    for phase, size in (("learning", 96), ("merging", 1), ("tuning", 96)):
        with measure.phase(phase):  # type: ignore[arg-type]
            torch.ones(size * mebibytes).sum()
    found = measure.expense.measured
    if not found.memory:
        pytest.skip("this kernel does not tell the highest memory")
    assert found.memory_of == "host"
    assert 90 < found.memory["learning"] / 2**20 < 160
    assert found.memory["merging"] / 2**20 < 30
    assert 90 < found.memory["tuning"] / 2**20 < 160
    del kept


def test_what_another_process_does_has_seconds_and_no_memory(tmp_path: Path) -> None:
    measure = meter(tmp_path)
    with measure.phase("learning", alone=False):
        pass
    measured = measure.expense.measured
    assert list(measured.seconds) == ["learning"]
    assert (measured.memory, measured.memory_of) == ({}, None)


def write_one(path: Path) -> None:
    path.write_text("1")


def test_only_what_an_earlier_process_left_counts_as_cached(tmp_path: Path) -> None:
    def read(cache: Cache, phase: Phase) -> list[str]:
        measure = Meter(torch.device("cpu"), cache)
        with measure.phase(phase):
            cache.file("numbers", "one.txt", write_one)
        return measure.expense.measured.cached

    cache = Cache(tmp_path)
    assert read(cache, "statistics") == read(cache, "evidence") == []
    assert read(Cache(tmp_path), "statistics") == ["statistics"]


def test_what_the_run_has_made_before_is_told_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def slow(path: Path) -> None:
        time.sleep(0.05)
        write_one(path)

    seconds = []
    for _ in range(2):
        measure = Meter(torch.device("cpu"), cache)
        with measure.phase("evidence"):
            cache.file("numbers", "one.txt", slow)
        seconds.append(measure.expense.measured.seconds["evidence"])
    assert min(seconds) >= 0.05
    # A value of a grid that failed has cost its time too.

    def fails() -> None:
        with measure.phase("tuning"):
            cache.file("numbers", "one.txt", slow)
            raise KilledError

    with pytest.raises(KilledError):
        fails()
    assert measure.expense.measured.seconds["tuning"] >= 0.05


def test_parts_add_up_and_other_values_of_a_grid_become_tuning() -> None:
    one = Expense(
        Cost(images=1, forward_passes=2, backward_passes=3, parameters=4),
        Measured(
            seconds={"learning": 1.0, "merging": 0.5},
            memory={"learning": 10, "merging": 20},
            memory_of="host",
            cached=["learning"],
        ),
    )
    bank = Expense(measured=Measured(seconds={"bank": 2.0}, memory={"bank": 5}, memory_of="host"))
    whole = one + bank + one.as_tuning()
    assert whole.cost == Cost(images=2, forward_passes=4, backward_passes=6, parameters=4)
    assert whole.measured == Measured(
        seconds={"bank": 2.0, "learning": 1.0, "merging": 0.5, "tuning": 1.5},
        memory={"bank": 5, "learning": 10, "merging": 20, "tuning": 20},
        memory_of="host",
        cached=["learning", "tuning"],
        resumed=False,
    )
    assert list(whole.measured.seconds) == ["bank", "learning", "merging", "tuning"]
