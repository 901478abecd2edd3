"""Scores of a task's classes under any backbone weights, computed once per weights and images."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.cache import Cache
from statsmerging.records.hashing import key_of, state_sha256
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.inference import extract_features


def class_scores(
    zoo: Zoo,
    state: Mapping[str, Tensor],
    task: str,
    split: ImageSplit,
    cache: Cache | None,
    *,
    description: str,
) -> Tensor:
    """Scores of one task's head on the features of the backbone with the given weights.

    Args:
        state: backbone weights by tensor name.
        split: the images to score.
        cache: where scores are kept, for weights that are scored again; ``None`` keeps none.
        description: shown beside the progress bar.

    Returns:
        N × C, float32; from the cache if these weights scored these images before.
    """
    head = zoo.experts[task].head.cpu()

    def compute() -> Tensor:
        features = extract_features(
            zoo.backbone,
            state,
            split.images,
            zoo.preprocess,
            zoo.device,
            description=description,
        )
        return nn.functional.linear(features, head.weight, head.bias)

    if cache is None:
        return compute()
    key = key_of(
        [state_sha256(state), state_sha256(head.state_dict()), split.key, zoo.preprocess.key]
    )
    path = cache.file(
        "class_scores", f"{key}.safetensors", lambda path: save_file({"scores": compute()}, path)
    )
    return load_file(path)["scores"]
