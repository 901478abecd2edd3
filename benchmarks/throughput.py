"""Teacher labels and evaluation against the pure forward passes of the network.

    python -m benchmarks.throughput --images 256

Labels and scores are computed as in a job: images from the cache's file, normalised per batch, the
weights hashed, the scores written. Decoding and resizing happen once, before; the table says how
fast.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.learning_step import CLASSES
from benchmarks.measuring import median_ratio, parser, publish, seconds_in_turns
from benchmarks.random_bank import backbone
from statsmerging.data.images import ImageSplit, load_split
from statsmerging.data.pictures import Preprocess
from statsmerging.data.suites import Undecoded
from statsmerging.scoring.scores import class_scores
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import BATCH, Network
from statsmerging.zoo.weights import Weights

TASK = "photographs"


class Photographs:
    """Random pictures in memory, larger than the network's input."""

    fingerprint = "random"
    digests = None

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.pictures = [
            Image.fromarray(rng.integers(256, size=(300, 400, 3), dtype=np.uint8))
            for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self.pictures)

    def undecoded(self) -> Iterator[Undecoded]:
        return (picture.copy for picture in self.pictures)

    def labels(self) -> np.ndarray:
        return np.zeros(len(self), dtype=np.int64)


def main() -> None:
    """Measure and print one table."""
    options = parse_options()
    torch.manual_seed(0)
    source, preprocess = Photographs(options.images), Preprocess(224, (0.5,) * 3, (0.5,) * 3)
    zoo = random_zoo(options.backbone, preprocess)
    with tempfile.TemporaryDirectory() as folder:
        caches = (Cache(Path(folder) / str(i)) for i in range(1000))
        split = load_split(source, preprocess, Cache(Path(folder)), name=TASK)
        variants: dict[str, Callable[[], object]] = {
            "forward passes alone": forward_passes(zoo, preprocess.normalise(split.images[:])),
            "teacher labels": lambda: scores(zoo, split, next(caches)),
            "evaluation of a merged model": lambda: scores(zoo, split, None),
            "reading and resizing, once": lambda: load_split(
                source, preprocess, next(caches), name=TASK
            ),
        }
        seconds = seconds_in_turns(variants, options.rounds)
    reference = seconds["forward passes alone"]
    rows = [
        {
            "what": name,
            "images/s": len(split) / statistics.median(taken),
            "of the forward passes' throughput": 1 / median_ratio(taken, reference),
        }
        for name, taken in seconds.items()
    ]
    publish(options.json, "throughput", f"Throughput: {options.backbone}", rows)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--images", type=int, default=512)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    if arguments.small:
        arguments.images, arguments.rounds = 128, 3
    return arguments


def random_zoo(name: str, preprocess: Preprocess) -> Zoo:
    """A zoo of one expert with random weights."""
    network = backbone(name, preprocess.image_size)
    width = int(network(torch.zeros(1, 3, preprocess.image_size, preprocess.image_size)).shape[1])
    head = Head(torch.randn(CLASSES, width), torch.zeros(CLASSES))
    whole = Network(network, preprocess, torch.device("cpu"))
    return Zoo(whole, whole.initial, {TASK: Expert(whole.initial, head)})


def forward_passes(zoo: Zoo, images: Tensor) -> Callable[[], object]:
    """The network alone, on images that are ready."""

    @torch.inference_mode()
    def run() -> list[Tensor]:
        return [zoo.network.module(batch) for batch in images.split(BATCH)]

    return run


def scores(zoo: Zoo, split: ImageSplit, cache: Cache | None) -> Tensor:
    """Scores under weights that nobody has hashed yet."""
    weights = Weights(dict(zoo.experts[TASK].state))
    return class_scores(zoo, weights, TASK, split, cache, description="scores")


if __name__ == "__main__":
    main()
