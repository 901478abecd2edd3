"""Build a small local mirror of the eight-task experiment: tiny CLIP, genuine layouts, real images.

`experiment=clip_eight` needs 30 GB from the Hugging Face hub. This script makes a folder
with the same layout in a few minutes, so that every path is exercised without network:

    pip install --constraint constraints.txt --editable '.[transformers]'
    python tests/tooling/build_small_mirror.py IMAGES MIRROR

IMAGES is a folder of tasks in the local layout of Hugging Face `datasets` (data/README.md says how
to make one); its tasks stand in for the eight in alphabetical order. MIRROR gets `data/TASK/`, and
in `zoo/` a randomly initialised tiny CLIP with experts that were fine-tuned for a moment, written
by `transformers` itself. The command that runs on it is printed at the end; its numbers mean
nothing but that everything works.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

try:
    import transformers
except ModuleNotFoundError:
    sys.exit(
        "transformers is not installed: "
        "pip install --constraint constraints.txt --editable '.[transformers]'"
    )

TASKS = ("dtd", "eurosat", "gtsrb", "mnist", "resisc45", "stanford_cars", "sun397", "svhn")
SERIES = "clip-vit-base-patch32"
HUB_NAMES = {"stanford_cars": "stanford-cars"}

VISION = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 32,
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
EMBEDDING = 32
#: The same sizes as open_clip's arguments.
ARGUMENTS = (
    "{embed_dim:32,vision_cfg:{layers:2,width:64,head_width:32,patch_size:32,image_size:224},"
    "text_cfg:{context_length:77,vocab_size:49408,width:32,heads:2,layers:1}}"
)

STEPS, BATCH, IMAGES = 60, 32, 400
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def main(images: Path, mirror: Path) -> None:
    sources = sorted(path for path in images.iterdir() if any(path.glob("*.parquet")))
    if len(sources) < len(TASKS):
        sys.exit(f"{images} holds {len(sources)} tasks, {len(TASKS)} are needed")
    torch.manual_seed(0)
    clip = tiny_clip()
    clip.save_pretrained(mirror / "zoo" / "openai" / SERIES)
    for task, source in zip(TASKS, sources, strict=False):
        print(f"{task}: {source.name}", flush=True)
        shutil.copytree(source, mirror / "data" / task, dirs_exist_ok=True)
        expert = fine_tuned(clip, source)
        repository = f"{SERIES}_{HUB_NAMES.get(task, task)}"
        expert.save_pretrained(mirror / "zoo" / "tanganke" / repository)
    print(
        f"python run.py experiment=clip_eight suite.root={mirror}/data "
        f"zoo.root={mirror}/zoo 'backbone.arguments={ARGUMENTS}'"
    )


def tiny_clip() -> transformers.CLIPModel:
    """A whole CLIP with two small towers."""
    config = transformers.CLIPConfig(
        text_config=TEXT, vision_config=VISION, projection_dim=EMBEDDING
    )
    return transformers.CLIPModel(config)


def fine_tuned(clip: transformers.CLIPModel, source: Path) -> transformers.CLIPVisionModel:
    """The image tower after some steps on a task's training images, under its zero-shot head."""
    data = datasets.load_dataset("parquet", data_files=str(source / "train-*.parquet"))["train"]
    data = data.shuffle(seed=0).select(range(min(IMAGES, len(data))))
    pixels = torch.stack([prepared(image) for image in data["image"]])
    labels = torch.tensor(data["label"][:])
    names = [name.replace("_", " ") for name in data.features["label"].names]
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {name}." for name in names])
        texts = clip.text_projection(clip.text_model(tokens).pooler_output)
    head = 100 * torch.nn.functional.normalize(texts, dim=-1)

    tower = transformers.CLIPVisionModel(clip.config.vision_config)
    start = {
        name.removeprefix("vision_model."): value.clone()
        for name, value in clip.vision_model.state_dict().items()
    }
    prefix = next(iter(tower.state_dict())).partition("embeddings")[0]
    tower.load_state_dict({f"{prefix}{name}": value for name, value in start.items()})
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-3)
    for _ in range(STEPS):
        rows = torch.randint(len(labels), (BATCH,))
        features = clip.visual_projection(tower(pixels[rows]).pooler_output)
        scores = torch.nn.functional.normalize(features, dim=-1) @ head.T
        loss = torch.nn.functional.cross_entropy(scores, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tower


def prepared(image: Image.Image) -> Tensor:
    """224 × 224 pixels, as CLIP wants them."""
    array = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
    return (torch.from_numpy(array.copy()).permute(2, 0, 1) / 255 - MEAN) / STD


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
