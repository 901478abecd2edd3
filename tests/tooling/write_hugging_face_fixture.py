"""Write tiny CLIP models with the genuine `transformers`, whichever version is installed.

Run by hand once per naming, each in an environment of its own, from the root of the repository:

    python -m venv /tmp/old && /tmp/old/bin/pip install torch transformers==4.46.3
    /tmp/old/bin/python tests/tooling/write_hugging_face_fixture.py tests/zoo/formats/fixtures

and again with transformers==5.23.0. The files go to `transformers_MAJOR/`: a vision model, one
with projection and a full CLIP (also as `.bin` where this version still writes it) that share
their image tower, and `expected.safetensors` with its outputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}
TEXT = {
    "vocab_size": 32,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
}
EMBEDDING = 12


def main(root: Path) -> None:
    folder = root / f"transformers_{transformers.__version__.split('.')[0]}"
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        vision_config={**VISION, "projection_dim": EMBEDDING},
        text_config={**TEXT, "projection_dim": EMBEDDING},
        projection_dim=EMBEDDING,
    )
    clip = transformers.CLIPModel(config).eval()
    # Fresh biases are zero and fresh norms one: noise makes every tensor count.
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    clip.save_pretrained(folder / "clip")
    torch.save(clip.state_dict(), folder / "clip.bin")
    projected = transformers.CLIPVisionModelWithProjection.from_pretrained(
        folder / "clip", config=config.vision_config
    ).eval()
    projected.save_pretrained(folder / "vision_with_projection")
    vision = transformers.CLIPVisionModel.from_pretrained(
        folder / "clip", config=config.vision_config
    ).eval()
    vision.save_pretrained(folder / "vision")
    images = torch.randn(2, 3, VISION["image_size"], VISION["image_size"])
    with torch.no_grad():
        expected = {
            "images": images,
            "features": projected(images).image_embeds,
            "pooled": vision(images).pooler_output,
        }
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
