"""A transformer's MLP whose weights are merged anew for every image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import Method, parameter
from statsmerging.merging.methods.task_arithmetic import TaskArithmetic

#: Names of the two linear layers, in timm's vision transformers and in open_clip's towers.
_LAYERS = (("fc1", "fc2"), ("c_fc", "c_proj"))


def transformer_mlps(backbone: nn.Module) -> dict[str, nn.Module]:
    """All modules named ``mlp``: ``blocks.i.mlp`` in timm, ``transformer.resblocks.i.mlp`` in
    open_clip.

    Raises:
        MergingError: there is none, or one that is not two linear layers with
            an activation between.
    """
    found = {
        name: module for name, module in backbone.named_modules() if name.split(".")[-1] == "mlp"
    }
    if not found:
        raise MergingError("the backbone has no MLP: it is not a transformer of timm or open_clip")
    for name, mlp in found.items():
        if not _is_plain(mlp):
            raise MergingError(f"{name}: not an MLP of two linear layers, both with a bias")
    return found


def _is_plain(mlp: nn.Module) -> bool:
    linear = {name: child for name, child in mlp.named_children() if isinstance(child, nn.Linear)}
    if tuple(linear) not in _LAYERS or any(layer.bias is None for layer in linear.values()):
        return False
    first, second = linear.values()
    # A gated MLP has the same names, but its second layer takes half of what the first gives.
    return first.out_features == second.in_features


class Router(nn.Module):
    """Tokens of an image → K coefficients: a network of two layers, averaged over the tokens.

    The last layer starts at zero with a constant bias, so every image starts with the same
    coefficients.

    Args:
        dimension: D, width of the tokens and of the hidden layer.
        tasks: K.
        start: the coefficients before training.
        generator: source of the hidden layer.
    """

    def __init__(
        self, dimension: int, tasks: int, start: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        # Not initialised twice: torch's own initialisation draws from the global generator.
        self.hidden = nn.utils.skip_init(nn.Linear, dimension, dimension)
        self.output = nn.utils.skip_init(nn.Linear, dimension, tasks)
        nn.init.normal_(self.hidden.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.output.bias, start)

    def forward(self, tokens: Tensor) -> Tensor:
        """N × T × D → N × K."""
        coefficients: Tensor = self.output(torch.relu(self.hidden(tokens))).mean(dim=1)
        return coefficients


class RoutedLinear(nn.Module):
    """x (W₀ + Σ_k r_k T_k)ᵀ + b₀ + Σ_k r_k t_k, with coefficients r of each image's own.

    No weights are merged: by linearity, the outputs under W₀ and the T_k are. The task vectors
    are the bank's own, not copies.

    Args:
        layer: name of the linear layer in the backbone.
        bank: of the backbone.
    """

    weight: Tensor
    weight_vectors: Tensor
    bias: Tensor
    bias_vectors: Tensor

    def __init__(self, layer: str, bank: TaskVectorBank) -> None:
        super().__init__()
        for part in ("weight", "bias"):
            start, vectors = _start_and_vectors(bank, f"{layer}.{part}")
            self.register_buffer(part, start, persistent=False)
            self.register_buffer(f"{part}_vectors", vectors, persistent=False)

    def forward(self, inputs: Tensor, coefficients: Tensor) -> Tensor:
        """Inputs N × T × n and coefficients N × K → N × T × m."""
        output = F.linear(inputs, self.weight, self.bias)
        for column, vector in zip(coefficients.unbind(1), self.weight_vectors, strict=True):
            # The inputs are scaled and not the outputs: for the gradient of r, autograd then
            # keeps the inputs once instead of K outputs.
            output = output + F.linear(inputs * column[:, None, None], vector.to(inputs))
        return output + (coefficients @ self.bias_vectors.to(coefficients)).unsqueeze(1)


class RoutedMlp(nn.Module):
    """An MLP of two linear layers, both routed by one router that sees the MLP's input.

    Args:
        name: of the MLP in the backbone.
        mlp: what is between its linear layers and after them is used as it is.
        bank: of the backbone.
        start: coefficients before training.
        generator: source of the router's hidden layer.
    """

    def __init__(
        self,
        name: str,
        mlp: nn.Module,
        bank: TaskVectorBank,
        start: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        names, modules = zip(*mlp.named_children(), strict=True)
        linear = [i for i, module in enumerate(modules) if isinstance(module, nn.Linear)]
        first, second = linear
        self.first = RoutedLinear(f"{name}.{names[first]}", bank)
        self.between = nn.Sequential(*modules[first + 1 : second])
        self.second = RoutedLinear(f"{name}.{names[second]}", bank)
        self.after = nn.Sequential(*modules[second + 1 :])
        self.router = Router(modules[first].in_features, len(bank.tasks), start, generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """N × T × D → N × T × D."""
        coefficients = self.router(tokens)
        hidden = self.between(self.first(tokens, coefficients))
        output: Tensor = self.after(self.second(hidden, coefficients))
        return output


def _start_and_vectors(bank: TaskVectorBank, name: str) -> tuple[Tensor, Tensor]:
    """θ₀ of a tensor and its K task vectors in its shape; zeros if no expert changed it."""
    if name in bank.pretrained:
        start = bank.pretrained[name]
        return start, bank.vectors[name].view(-1, *start.shape)
    kept = bank.kept[name]
    return kept, kept.new_zeros(()).expand(len(bank.tasks), *kept.shape)


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
        self.backbone.load_state_dict(TaskArithmetic(scale).merge(bank), assign=True)
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
