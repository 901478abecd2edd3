"""WEMoE: the MLPs of a transformer become mixtures of task vectors, mixed for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import Method
from statsmerging.merging.methods.parameters import parameter
from statsmerging.merging.methods.routed_mlp import RoutedMlp, Router, transformer_mlps
from statsmerging.merging.methods.task_arithmetic import task_arithmetic

#: Task → images as the backbone takes them, n × 3 × S × S; one step of the training.
Batch = Mapping[str, Tensor]

#: Task and features of its images (n × D) → a scalar, such as the entropy of the predictions.
Loss = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class WeightEnsemblingMoE(Method):
    """WEMoE (Tang et al., *Merging Multi-Task Models via Weight-Ensembling Mixture of Experts*,
    ICML 2024).

    All tensors but those of the MLPs are merged by task arithmetic. Every MLP gets the weights
    W(x) = W₀ + Σ_k r_k(x) T_k, where a small router computes r from the MLP's input, averaged
    over the image's tokens. The routers alone are trained, on unlabeled images, in the paper by
    minimising the entropy of the predictions.

    Two things differ from the released code. It draws the routers' last layer from N(0, 0.01²);
    here it starts at zero, so that training starts exactly at task arithmetic. And in training it
    averages r over the batch, to save memory; here every image has its own, as in testing.

    Args:
        scale: λ of task arithmetic, and r before training; 0.3 in the paper.
        steps: batches to train on; 1000 in the released code, with 16 images of each task.
        learning_rate: of Adam; 1e-4 in the released code.
        seed: of the routers' hidden layers.
    """

    name = "wemoe"
    title = "WEMoE"
    needs = "unlabeled images"
    returns = "router"

    scale: float = parameter(0.3, at_least=0)
    steps: int = parameter(1000, at_least=0)
    learning_rate: float = parameter(1e-4, above=0)
    seed: int = parameter(0, at_least=0)

    def build(self, backbone: nn.Module, bank: TaskVectorBank) -> WEMoE:
        """The untrained model; see ``WEMoE``."""
        return WEMoE(backbone, bank, self.scale, self.seed)

    def fit(
        self, backbone: nn.Module, bank: TaskVectorBank, batches: Iterable[Batch], loss: Loss
    ) -> WEMoE:
        """The model, with routers trained on the first ``steps`` batches."""
        model = self.build(backbone, bank)
        train_routers(model, islice(batches, self.steps), loss, self.learning_rate)
        return model


class WEMoE(nn.Module):
    """Images N × 3 × S × S → features N × D, with weights of each image's own in the MLPs.

    Only the routers have parameters that require a gradient.

    Attributes:
        routers: name of the MLP → its router.

    Args:
        backbone: a vision transformer whose state dict the bank was built from; it is copied.
        bank: the task vectors; they are referenced.
        scale: λ of the tensors outside the MLPs, and the routers' output before training.
        seed: of the routers' hidden layers.

    Raises:
        MergingError: a backbone without MLPs of two linear layers.
    """

    def __init__(self, backbone: nn.Module, bank: TaskVectorBank, scale: float, seed: int) -> None:
        super().__init__()
        self.backbone = deepcopy(backbone).eval()
        self.backbone.load_state_dict(task_arithmetic(bank, scale), assign=True)
        self.backbone.requires_grad_(False)
        self.routers: dict[str, Router] = {}
        generator = torch.Generator().manual_seed(seed)
        for name, mlp in transformer_mlps(self.backbone).items():
            routed = RoutedMlp(name, mlp, bank, scale, generator)
            self.routers[name] = routed.router.to(next(iter(bank.pretrained.values())))
            self.backbone.set_submodule(name, routed)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return features

    def train(self, mode: bool = True) -> WEMoE:
        """Stay in evaluation mode: the backbone's dropout is not part of the method."""
        del mode
        return super().train(False)


def train_routers(model: WEMoE, batches: Iterable[Batch], loss: Loss, learning_rate: float) -> None:
    """One Adam step for each batch, on the sum of the tasks' losses.

    The tasks take their turn, so that only one task's activations exist.
    """
    trained = [weight for router in model.routers.values() for weight in router.parameters()]
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        for task, images in batch.items():
            loss(task, model(images)).backward()
        optimizer.step()
