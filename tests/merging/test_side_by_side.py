"""Layers are worked on several at a time, each with threads of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock

import pytest
import torch
from torch import Tensor

from statsmerging.merging import (
    SpectralBank,
    TaskVectorBank,
    direction_statistics,
    layer_statistics,
)
from statsmerging.merging.side_by_side import side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def same(found: SpectralBank, expected: SpectralBank) -> None:
    torch.testing.assert_close(
        direction_statistics(found).values, direction_statistics(expected).values
    )
    coefficients = torch.linspace(-1, 2, sum(expected.sizes.values()))
    torch.testing.assert_close(found.merge(coefficients), expected.merge(coefficients))


def test_two_at_a_time_give_what_one_gives(
    pretrained: dict[str, Tensor],
    experts: dict[str, dict[str, Tensor]],
    bank: TaskVectorBank,
    two_threads: None,
) -> None:
    torch.set_num_threads(1)
    alone = SpectralBank.from_bank(bank)
    torch.set_num_threads(2)
    same(SpectralBank.from_bank(bank), alone)
    same(SpectralBank.from_state_dicts(pretrained, experts), alone)
    assert list(SpectralBank.from_bank(bank).directions) == list(bank.layers)


def test_statistics_are_the_same_with_two_at_a_time(
    bank: TaskVectorBank, two_threads: None
) -> None:
    found = layer_statistics(bank)
    torch.set_num_threads(1)
    torch.testing.assert_close(found.values, layer_statistics(bank).values)


class OneAtATime(Mapping[str, Tensor]):
    """Tensors that two threads may not read at once, like those of an open file."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.lock = Lock()

    def __getitem__(self, name: str) -> Tensor:
        assert self.lock.acquire(blocking=False), "two threads read"
        tensor = self.tensors[name].clone()
        self.lock.release()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_experts_are_read_by_one_thread_at_a_time(
    pretrained: dict[str, Tensor],
    experts: dict[str, dict[str, Tensor]],
    bank: TaskVectorBank,
    two_threads: None,
) -> None:
    lazy = {task: OneAtATime(state) for task, state in experts.items()}
    same(SpectralBank.from_state_dicts(pretrained, lazy), SpectralBank.from_bank(bank))


def test_the_number_of_threads_is_the_same_afterwards(two_threads: None) -> None:
    def failing(name: str) -> None:
        raise ValueError(name)

    with pytest.raises(ValueError, match="first"):
        side_by_side(failing, ("first", "second"), torch.device("cpu"))
    assert torch.get_num_threads() == 2
