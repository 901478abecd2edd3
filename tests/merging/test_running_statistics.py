"""Running statistics measured in a network: the mean over batches, each normalised by its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from statsmerging.merging import MergingError
from statsmerging.merging.running_statistics import recalibrated, running_statistics
from tests.small_models import TinyBackbone, small_vit


class Stacked(nn.Module):
    """Two normalisations, so that the second sees what the first makes of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm1 = nn.BatchNorm1d(4, eps=1e-3, momentum=0.3)
        self.second = nn.Linear(4, 2, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.norm2 = nn.BatchNorm1d(2, affine=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.first(inputs)))
        output: Tensor = self.norm2(self.second(self.dropout(hidden)))
        return output


def stacked() -> tuple[Stacked, dict[str, Tensor], list[Tensor]]:
    """The network, other weights than its own, and batches of different mean and size."""
    torch.manual_seed(0)
    network = Stacked()
    state = {
        name: torch.rand_like(value) + 0.1 if value.is_floating_point() else value + 7
        for name, value in network.state_dict().items()
    }
    batches = [torch.randn(size, 3) + size for size in (5, 6, 8)]
    return network, state, batches


def test_means_over_batches_in_float64() -> None:
    network, state, batches = stacked()
    wide = {name: value.double() for name, value in state.items()}
    means1, variances1, means2, variances2 = [], [], [], []
    for batch in batches:
        hidden = batch.double() @ wide["first.weight"].mT + wide["first.bias"]
        mean, spread = hidden.mean(0), hidden - hidden.mean(0)
        means1.append(mean)
        variances1.append((spread**2).sum(0) / (len(batch) - 1))
        hidden = spread / torch.sqrt((spread**2).mean(0) + 1e-3)
        hidden = (hidden * wide["norm1.weight"] + wide["norm1.bias"]).clamp(min=0)
        hidden = hidden @ wide["second.weight"].mT  # nothing is dropped
        means2.append(hidden.mean(0))
        variances2.append(hidden.var(0, unbiased=True))
    expected = {
        "norm1.running_mean": means1,
        "norm1.running_var": variances1,
        "norm2.running_mean": means2,
        "norm2.running_var": variances2,
    }
    found = recalibrated(network, state, batches)
    assert list(found) == list(expected) == list(running_statistics(network))
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.stack(values).mean(0).float())


def test_network_and_weights_stay_as_they_are() -> None:
    network, state, batches = stacked()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given = {name: value.clone() for name, value in state.items()}
    recalibrated(network, state, batches)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, given[name]) for name, value in state.items())
    assert network.norm1.training
    assert network.norm1.momentum == 0.3


def test_former_running_statistics_have_no_influence() -> None:
    network, state, batches = stacked()
    found = recalibrated(network, state, batches)
    other = {**state, **{name: state[name] * 3 + 1 for name in found}}
    again = recalibrated(network, other, batches)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_the_type_is_that_of_the_weights() -> None:
    backbone = TinyBackbone()
    state = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in backbone.state_dict().items()
    }
    found = recalibrated(backbone, state, [torch.randn(4, 3, 8, 8)])
    assert set(found) == {"normalisation.running_mean", "normalisation.running_var"}
    assert {value.dtype for value in found.values()} == {torch.bfloat16}


def test_without_batch_normalisation_there_is_nothing_to_measure() -> None:
    vit = small_vit()
    assert running_statistics(vit) == ()
    assert recalibrated(vit, vit.state_dict(), []) == {}
    untracked = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    assert running_statistics(untracked) == ()


def test_statistics_of_nothing_are_refused() -> None:
    network, state, _ = stacked()
    with pytest.raises(MergingError, match="at least one batch"):
        recalibrated(network, state, [])
