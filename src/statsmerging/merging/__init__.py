"""The heart, in pure torch: task vectors, statistics, learner, merged model, methods.

>>> import torch
>>> backbone = torch.nn.Linear(4, 3)
>>> pretrained = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
>>> experts = {
...     task: {name: tensor + torch.randn_like(tensor) for name, tensor in pretrained.items()}
...     for task in ("mnist", "svhn")
... }
>>> heads = {task: torch.nn.Linear(3, 10) for task in experts}
>>> images = torch.randn(8, 4)

>>> from statsmerging.merging import (
...     MergedModel, StatsMergeLearner, TaskVectorBank, layer_statistics
... )

Five lines give logits that are differentiable in the learner:

>>> bank = TaskVectorBank.from_state_dicts(pretrained, experts)
>>> statistics = layer_statistics(bank, rank=3)
>>> learner = StatsMergeLearner(statistics, granularity="layer_wise")
>>> student = MergedModel(backbone, bank)
>>> logits = heads["mnist"](student(images, learner()))

>>> logits.shape, learner().shape
(torch.Size([8, 10]), torch.Size([2, 2]))

The same with one coefficient per singular direction:

>>> from statsmerging.merging import DirectionLearner, SpectralBank, direction_statistics
>>> bank = SpectralBank.from_state_dicts(pretrained, experts)
>>> learner = DirectionLearner(direction_statistics(bank))
>>> student = MergedModel(backbone, bank)
>>> logits = heads["mnist"](student(images, learner()))

>>> logits.shape, learner().shape  # 1 direction per expert in the matrix, 1 in the bias
(torch.Size([8, 10]), torch.Size([4]))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statsmerging.merging.bank import TaskVectorBank
    from statsmerging.merging.decomposition import Decomposition
    from statsmerging.merging.direction_learner import DirectionLearner
    from statsmerging.merging.directions import DirectionStatistics, direction_statistics
    from statsmerging.merging.errors import MergingError
    from statsmerging.merging.learner import StatsMergeLearner
    from statsmerging.merging.merged_model import MergedModel
    from statsmerging.merging.spectral import SpectralBank
    from statsmerging.merging.statistics import LayerStatistics, layer_statistics

__all__ = [
    "Decomposition",
    "DirectionLearner",
    "DirectionStatistics",
    "LayerStatistics",
    "MergedModel",
    "MergingError",
    "SpectralBank",
    "StatsMergeLearner",
    "TaskVectorBank",
    "direction_statistics",
    "layer_statistics",
]

#: Public name → its module, imported when the name is first used: errors come without torch.
_MODULES = {
    "Decomposition": "decomposition",
    "DirectionLearner": "direction_learner",
    "DirectionStatistics": "directions",
    "LayerStatistics": "statistics",
    "MergedModel": "merged_model",
    "MergingError": "errors",
    "SpectralBank": "spectral",
    "StatsMergeLearner": "learner",
    "TaskVectorBank": "bank",
    "direction_statistics": "directions",
    "layer_statistics": "statistics",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
