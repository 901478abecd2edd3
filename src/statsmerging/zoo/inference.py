"""Forward passes over a whole split, in batches and without gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.preprocess import Preprocess
from statsmerging.records.progress import track

#: Images in one forward pass.
BATCH = 128


@torch.inference_mode()
def extract_features(
    backbone: nn.Module,
    state: Mapping[str, Tensor],
    images: Tensor,
    preprocess: Preprocess,
    *,
    description: str,
) -> Tensor:
    """Features of every image under the given weights, on the CPU: N × D, float32.

    The backbone's own weights are neither used nor changed: others may share them.

    Args:
        state: backbone weights by tensor name.
        images: uint8, N × 3 × S × S.
        description: shown beside the progress bar.
    """
    device = next(backbone.parameters()).device
    backbone.eval()
    weights = {name: tensor.to(device) for name, tensor in state.items()}
    batches = images.split(BATCH)
    return torch.cat(
        [
            functional_call(backbone, weights, (preprocess.normalise(batch.to(device)),))
            .float()
            .cpu()
            for batch in track(batches, description, total=len(batches))
        ]
    )
