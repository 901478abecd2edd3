"""Write a tiny checkpoint of the `task_vectors` family with the genuine open_clip of its time.

Run by hand once, in an environment of its own, from the root of the repository:

    python -m venv /tmp/old
    /tmp/old/bin/pip install open-clip-torch==2.0.2 torch==2.15.0 torchvision==0.29.2 safetensors
    /tmp/old/bin/python tests/tooling/write_task_vectors_fixture.py tests/zoo/formats/fixtures

That project pickles whole modules of its own classes `src.modeling.ImageEncoder` and
`ClassificationHead` (https://github.com/mlfoundations/task_vectors). The two classes below have
the names and attributes of theirs; the model inside is open_clip's, only small.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transform import image_transform
from safetensors.torch import save_file
from torch import Tensor, nn

VISION = {"layers": 2, "width": 16, "head_width": 4, "patch_size": 4, "image_size": 8}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
EMBEDDING = 12
CLASSES = 5


class ImageEncoder(nn.Module):
    """A CLIP without its text transformer, and its two preprocessings."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        size = VISION["image_size"]
        self.train_preprocess = image_transform(size, is_train=True)
        self.val_preprocess = image_transform(size, is_train=False)
        self.cache_dir = None
        del self.model.transformer

    def forward(self, images: Tensor) -> Any:
        return self.model.encode_image(images)


class ClassificationHead(nn.Linear):
    """A linear layer that first divides the features by their norm, if ``normalize``."""

    def __init__(self, normalize: bool, weights: Tensor) -> None:
        super().__init__(weights.shape[1], weights.shape[0])
        self.normalize = normalize
        self.weight = nn.Parameter(weights.clone())
        self.bias = nn.Parameter(torch.zeros_like(self.bias))

    def forward(self, features: Tensor) -> Tensor:
        if self.normalize:
            features = features / features.norm(dim=-1, keepdim=True)
        return super().forward(features)


def pretend_module() -> None:
    """Give the classes the module name that stands in the family's pickles."""
    module: Any = types.ModuleType("src.modeling")
    for cls in (ImageEncoder, ClassificationHead):
        cls.__module__ = module.__name__
        setattr(module, cls.__name__, cls)
    sys.modules["src"] = types.ModuleType("src")
    sys.modules[module.__name__] = module


def main(folder: Path) -> None:
    pretend_module()
    torch.manual_seed(0)
    encoder = ImageEncoder(CLIP(EMBEDDING, VISION, TEXT, quick_gelu=True)).eval()
    # Fresh biases are zero and fresh norms one: noise makes every tensor count.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    # The family's heads are transposed text embeddings, so their weight is not contiguous.
    head = ClassificationHead(normalize=True, weights=torch.randn(EMBEDDING, CLASSES).T)
    images = torch.randn(2, 3, VISION["image_size"], VISION["image_size"])
    with torch.no_grad():
        features = encoder(images)
        scores = head(features)
    torch.save(encoder, folder / "task_vectors_encoder.pt")
    torch.save(encoder.state_dict(), folder / "task_vectors_state_dict.pt")
    torch.save(head, folder / "task_vectors_head.pt")
    expected = {"images": images, "features": features, "scores": scores}
    save_file(expected, folder / "task_vectors_expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
