"""Scores of a task's classes under any backbone weights, computed once per weights and images."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.merging.errors import MergingError
from statsmerging.records.cache import Cache
from statsmerging.records.hashing import key_of, state_sha256
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.inference import extract_features
from statsmerging.zoo.weights import Weights


def class_scores(
    zoo: Zoo,
    weights: Weights,
    task: str,
    split: ImageSplit,
    cache: Cache | None,
    *,
    description: str,
) -> Tensor:
    """Scores of one task's head on the features of the backbone with the given weights.

    Args:
        weights: of the backbone.
        split: the images to score.
        cache: where scores are kept, for weights that are scored again; ``None`` keeps none.
        description: shown beside the progress bar.

    Returns:
        N × C, float32; from the cache if these weights scored these images before.

    Raises:
        MergingError: NaN or infinite scores, of which one class would always be the greatest.
    """
    head = zoo.experts[task].head.cpu()

    def compute() -> Tensor:
        features = extract_features(
            zoo.backbone,
            weights,
            split.images,
            zoo.preprocess,
            zoo.device,
            description=description,
        )
        scores: Tensor = head(features)
        if not bool(torch.isfinite(scores).all()):
            raise MergingError(f"{description}: NaN or infinite scores; did the learning diverge?")
        return scores

    if cache is None:
        return compute()
    parts = [zoo.architecture, weights.sha256, state_sha256(head.state_dict()), split.key]
    key = key_of([*parts, zoo.preprocess.key])
    return cache.load(
        "class_scores",
        f"{key}.safetensors",
        write=lambda path: save_file({"scores": compute()}, path),
        read=lambda path: load_file(path)["scores"],
    )
