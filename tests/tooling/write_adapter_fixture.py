"""Write tiny LoRA adapters, and the models they give, with the genuine `peft`.

Run by hand once, in an environment of its own, after `write_hugging_face_fixture.py`, from the
root of the repository:

    python -m venv /tmp/lora && /tmp/lora/bin/pip install torch transformers==5.23.0 peft==0.21.2
    /tmp/lora/bin/python tests/tooling/write_adapter_fixture.py tests/zoo/formats/fixtures

Each adapter is a folder `adapters/NAME` as `peft` writes it, with `merged.safetensors` (what
`merge_and_unload` gives) and, where the model is none of the other fixtures, `base.safetensors`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

#: Attention and feed-forward layers, ranks and strengths that differ between layers.
PATTERNS: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 6,
    "target_modules": ["q_proj", "v_proj", "fc1"],
    "rank_pattern": {"fc1": 2},
    "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 20},
}


class Mixed(nn.Module):
    """A layer stored transposed (`Conv1D`) and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.transposed = Conv1D(6, 5)
        self.convolution = nn.Conv2d(3, 4, 3)


def write(model: Any, folder: Path, *, base: bool = False, **options: Any) -> None:
    """Adapt the model with random matrices; save the adapter and the merged weights."""
    if base:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / "base.safetensors")
    adapted = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink()  # an empty model card
    merged = adapted.merge_and_unload().state_dict()
    contiguous = {name: tensor.contiguous() for name, tensor in merged.items()}
    save_file(contiguous, folder / "merged.safetensors")


def main(root: Path) -> None:
    torch.manual_seed(0)
    folder = root / "adapters"

    def vision() -> Any:
        return transformers.CLIPVisionModel.from_pretrained(root / "transformers_5" / "vision")

    def projected() -> Any:
        return transformers.CLIPVisionModelWithProjection.from_pretrained(
            root / "transformers_5" / "vision_with_projection"
        )

    write(vision(), folder / "patterns", **PATTERNS)
    write(
        projected(),
        folder / "rslora",
        r=4,
        lora_alpha=6,
        use_rslora=True,
        bias="lora_only",
        target_modules=["q_proj", "out_proj"],
        modules_to_save=["visual_projection"],
    )
    write(
        Mixed(),
        folder / "mixed",
        base=True,
        r=2,
        fan_in_fan_out=True,
        target_modules=["transposed", "convolution"],
    )
    write(vision(), folder / "dora", use_dora=True, target_modules=["q_proj"], r=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
