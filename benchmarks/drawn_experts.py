"""Experts with a decaying spectrum, drawn tensor by tensor: none of them ever lies in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from statsmerging.merging.state_dicts import matrix_shape

#: Directions of a task matrix above its floor; their singular values fall as 1/√i from LARGEST.
DIRECTIONS = 64
LARGEST = 0.1

#: The largest singular value of the floor, which is Gaussian noise.
FLOOR = 0.01

#: Places in the noise at which an expert's may begin.
_PLACES = 1 << 20


@dataclass
class Noise:
    """Gaussian noise, drawn once: random numbers take longer than all else.

    Attributes:
        numbers: as many as the largest tensor has, and more.
        now: the seconds now.
        seconds: spent on making tensors.
    """

    numbers: Tensor
    now: Callable[[], float] = time.perf_counter
    seconds: float = field(default=0.0)

    def at(self, place: int, shape: tuple[int, ...]) -> Tensor:
        """A part of the noise as a tensor; other places give other parts."""
        begin = 7919 * place % _PLACES
        return self.numbers[begin : begin + torch.Size(shape).numel()].view(shape)


class DrawnExpert(Mapping[str, Tensor]):
    """θ₀ plus a task vector; a tensor is made anew whenever it is read, like one on a disk."""

    def __init__(self, pretrained: Mapping[str, Tensor], number: int, noise: Noise) -> None:
        self.pretrained = pretrained
        self.places = {name: 3000 * number + 3 * i for i, name in enumerate(pretrained)}
        self.noise = noise

    def __getitem__(self, name: str) -> Tensor:
        started = self.noise.now()
        start = self.pretrained[name]
        rows, columns = matrix_shape(start)
        place, rank = self.places[name], min(DIRECTIONS, rows, columns)
        spectrum = LARGEST / torch.arange(1, rank + 1).sqrt()
        left = self.noise.at(place, (rows, rank)) * (spectrum / (rows * columns) ** 0.5)
        floor = self.noise.at(place + 2, (rows, columns)) * (FLOOR / (rows**0.5 + columns**0.5))
        change = floor.addmm_(left, self.noise.at(place + 1, (rank, columns)))
        tuned: Tensor = change.view_as(start).add_(start)
        self.noise.seconds += self.noise.now() - started
        return tuned

    def __iter__(self) -> Iterator[str]:
        return iter(self.pretrained)

    def __len__(self) -> int:
        return len(self.pretrained)


def drawn_experts(
    pretrained: Mapping[str, Tensor], tasks: int, now: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, DrawnExpert], Noise]:
    """K experts by task name, and the noise that knows how long they took to make."""
    largest = max(tensor.numel() for tensor in pretrained.values())
    noise = Noise(torch.randn(largest + _PLACES), now)
    experts = {f"task_{k}": DrawnExpert(pretrained, k, noise) for k in range(tasks)}
    return experts, noise
