"""Forward passes over a whole split, in batches and without gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.preprocess import Preprocess
from statsmerging.records.errors import UserError
from statsmerging.records.progress import track

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
