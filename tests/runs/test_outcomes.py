"""Right or wrong per test image, as it is written and as it is received."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from statsmerging.runs.outcomes import read_outcomes, write_outcomes
from statsmerging.runs.results import MethodResult, RunResults, TaskAccuracy, run_results
from statsmerging.store.received import ReceivedError

#: Not a multiple of eight.
IMAGES = {"mnist": 13, "svhn": 8}


def scored(seed: int) -> MethodResult:
    random = np.random.default_rng(seed)
    right = {task: random.random(count) < 0.6 for task, count in IMAGES.items()}
    cells = {task: TaskAccuracy(float(r.mean()), len(r), r) for task, r in right.items()}
    return MethodResult({"mnist": cells["mnist"]}, {"svhn": cells["svhn"]})


METHODS = {"individual": scored(0), "ties": scored(1)}


def results() -> RunResults:
    return run_results(METHODS, suite="toy", backbone="vit", seed=0, stamps=[])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "outcomes.safetensors"
    write_outcomes(path, METHODS)
    return path


def test_what_was_written_is_read(file: Path) -> None:
    outcomes = read_outcomes(file, results())
    assert outcomes.methods == list(METHODS)
    assert outcomes.images == IMAGES
    for method, result in METHODS.items():
        assert outcomes.tasks_of(method) == set(IMAGES)
        for task, cell in result.accuracies.items():
            np.testing.assert_array_equal(outcomes.of(method, task), cell.right)


def test_one_bit_an_image(file: Path) -> None:
    assert {name: bits.nbytes for name, bits in load_file(file).items()} == {
        f"{method}/{task}": size for method in METHODS for task, size in (("mnist", 2), ("svhn", 1))
    }


def test_results_stay_as_they_were() -> None:
    row = results().as_json()["methods"]["ties"]
    assert set(row) == {"accuracy", "average", "normalised_average", "n", "unseen"}


def test_without_outcomes_there_is_no_file(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "none", {"ties": MethodResult({"mnist": TaskAccuracy(0.5, 10)})})
    assert not any(tmp_path.iterdir())


def test_a_row_that_the_results_lack_is_left_out(file: Path) -> None:
    save_file(load_file(file) | {"other/mnist": np.zeros(2, np.uint8)}, file)
    assert read_outcomes(file, results()).methods == list(METHODS)


def entry(value: np.ndarray) -> Callable[[Path], object]:
    return lambda path: save_file(load_file(path) | {"ties/mnist": value}, path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"\x80\x04pickle" * 9), "cannot be read"),
        (entry(np.zeros(3, np.uint8)), "does not fit results.json: 'ties/mnist'"),
        (entry(np.zeros((1, 2), np.uint8)), "does not fit results.json: 'ties/mnist'"),
        (entry(np.zeros(2, np.float32)), "does not fit results.json: 'ties/mnist'"),
        # As many images, of which another number is right.
        (entry(np.full(2, 255, np.uint8)), "does not fit results.json: 'ties/mnist'"),
    ],
)
def test_a_damaged_file_is_named(
    file: Path, damage: Callable[[Path], object], expected: str
) -> None:
    damage(file)
    with pytest.raises(ReceivedError) as refused:
        read_outcomes(file, results())
    assert str(refused.value).startswith(str(file))
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
