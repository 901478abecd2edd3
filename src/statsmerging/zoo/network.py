"""The network of a zoo: one architecture that is run, copied and identified, and never changed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.images import Images, in_batches
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.store.hashing import json_sha256
from statsmerging.zoo.settings import BackboneSettings
from statsmerging.zoo.weights import Weights

#: Images in one forward pass.
BATCH = 128


@dataclass(frozen=True, eq=False)
class Network:
    """Owns the module of an architecture: images N × 3 × S × S → features N × D.

    The weights of a forward pass are given with it. The module itself is neither moved, nor
    frozen, nor trained: who needs that takes a copy, ``fresh`` or ``frozen``.

    Attributes:
        module: the architecture, in evaluation mode, on the CPU.
        preprocess: how images become its input.
        device: where forward passes run.
        settings: what the module was made from; ``None`` for a module without settings.
    """

    module: nn.Module
    preprocess: Preprocess
    device: torch.device
    settings: BackboneSettings | None = None

    def __post_init__(self) -> None:
        self.module.eval()

    @cached_property
    def architecture(self) -> str:
        """sha256 of everything that determines the outputs besides the weights.

        The same weights give other outputs under another activation, which the printed modules
        show. timm prints no number of attention heads, which the settings have. The source code of
        a plugin's classes may change between two runs, so its hash is included.
        """
        modules = re.sub(r" at 0x[0-9a-f]+", "", repr(self.module))
        made_with = None if self.settings is None else self.settings.architecture
        sources = {sys.modules.get(type(module).__module__) for module in self.module.modules()}
        # `load_plugins` leaves the hash of a plugin's file in its module.
        plugins = {str(getattr(source, "__sha256__", "")) for source in sources} - {""}
        return json_sha256([modules, made_with, *sorted(plugins)])

    @property
    def initial(self) -> Weights:
        """The weights that the module was made with; they share its memory."""
        return Weights(self.module.state_dict())

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors for ``torch.func.functional_call``; see ``forward_weights``."""
        return forward_weights(self.module, state, self.device)

    def features(self, state: Mapping[str, Tensor], images: Images, *, description: str) -> Tensor:
        """Features of every image under the given weights, on the CPU: N × D, float32.

        Args:
            state: backbone weights by tensor name.
            images: uint8, N × 3 × S × S.
            description: shown beside the progress bar.
        """
        weights, normalise = self.weights(state), self.preprocess.normalise
        batches = in_batches(images, BATCH, description)
        return forward(self.module, weights, batches, normalise, self.device)

    def fresh(self, state: Mapping[str, Tensor]) -> nn.Module:
        """A copy of the module with its own memory and the given weights, to be trained."""
        module = deepcopy(self.module)
        module.load_state_dict(state)
        return module

    def frozen(self) -> nn.Module:
        """A frozen copy on the device, to be given weights; on the CPU it shares the memory."""
        return frozen_copy(self.module).to(self.device)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A frozen copy of a module, to be given other weights; until then it shares the memory."""
    shared: dict[int, Tensor] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return deepcopy(module, shared)


def forward_weights(
    module: nn.Module, state: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Tensors for ``torch.func.functional_call``: on the device, floating point in float32.

    Args:
        state: weights of the module by tensor name, in any precision.
    """
    # Buffers outside the state dict, such as tables of positions, are needed on the device too.
    buffers = {
        name: buffer.to(device) for name, buffer in module.named_buffers() if name not in state
    }
    return buffers | {
        name: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in state.items()
    }


@torch.inference_mode()
def forward(
    module: nn.Module,
    weights: dict[str, Tensor],
    batches: Iterable[Tensor],
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Tensor:
    """What a module gives for all batches under the given weights, on the CPU, float32.

    Args:
        weights: see ``forward_weights``.
        normalise: a batch → what the module takes.
    """
    return torch.cat(
        [
            functional_call(module, weights, (normalise(batch.to(device)),)).float().cpu()
            for batch in batches
        ]
    )


def inference_device(accelerator: str) -> torch.device:
    """The first GPU, unless ``accelerator`` is ``cpu``, or ``auto`` on a machine without one.

    Raises:
        UserError: ``gpu`` on a machine without one.
    """
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError("accelerator=gpu: there is no GPU here; choose auto or cpu")
    return torch.device("cuda" if accelerator != "cpu" and available else "cpu")
