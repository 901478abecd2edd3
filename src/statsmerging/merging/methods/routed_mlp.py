"""A transformer's MLP whose weights are merged anew for every image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError

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
