"""The network of a zoo: identified by a hash, and run under given weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.progress import track
from statsmerging.store.hashing import json_sha256
from statsmerging.zoo.settings import BackboneSettings


def architecture_key(backbone: nn.Module, settings: BackboneSettings | None) -> str:
    """Hash of the modules as they print themselves, and of the settings they were made with.

    The weights do not tell: under another activation the same ones give other outputs. Nor do
    the modules alone: timm's attention prints no number of heads. Of a user's own classes the code
    may be another next time: it is part of the hash.

    Args:
        settings: ``None`` for a network that no settings made.
    """
    modules = re.sub(r" at 0x[0-9a-f]+", "", repr(backbone))
    made_with = None if settings is None else settings.architecture
    return json_sha256([modules, made_with, *_plugins(backbone)])


def _plugins(backbone: nn.Module) -> list[str]:
    """sha256 of the user's files that the modules come from, as ``load_plugins`` left it there."""
    sources = {type(module).__module__ for module in backbone.modules()}
    hashes = {getattr(sys.modules.get(source), "__sha256__", None) for source in sources}
    return sorted(hash_ for hash_ in hashes if hash_ is not None)


#: Images in one forward pass.
BATCH = 128


def inference_device(accelerator: str) -> torch.device:
    """The first GPU, unless ``accelerator`` is ``cpu``, or ``auto`` where there is none.

    Raises:
        UserError: ``gpu`` where there is none.
    """
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError("accelerator=gpu: there is no GPU here; choose auto or cpu")
    return torch.device("cuda" if accelerator != "cpu" and available else "cpu")


def weights_on(device: torch.device, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Backbone weights as a forward pass takes them: in float32, whatever files hold them in."""
    return {
        name: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in state.items()
    }


@torch.inference_mode()
def extract_features(
    backbone: nn.Module,
    state: Mapping[str, Tensor],
    images: Tensor,
    preprocess: Preprocess,
    device: torch.device,
    *,
    description: str,
) -> Tensor:
    """Features of every image under the given weights, on the CPU: N × D, float32.

    The backbone's own weights are neither used nor changed: others may share them.

    Args:
        state: backbone weights by tensor name.
        images: uint8, N × 3 × S × S.
        device: where the forward passes run.
        description: shown beside the progress bar.
    """
    backbone.eval().to(device)
    weights = weights_on(device, state)
    batches = images.split(BATCH)
    return torch.cat(
        [
            functional_call(backbone, weights, (preprocess.normalise(batch.to(device)),))
            .float()
            .cpu()
            for batch in track(batches, description, total=len(batches))
        ]
    )
