"""The ``faces`` task: faces against other pieces of photographs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .appearance import add_noise, expose, to_bytes
from .drawing import CANVAS, Jitter, place_all, random_poses
from .task import (
    EmbeddedTask,
    Images,
    LabeledImages,
    generator,
    stratified_split,
    without_duplicates,
)

SIZES = {"train": 100, "validation": 40, "test": 60}
FACES = 100

# As the source aligns its faces to the pixel, and most of its other patches are plain, upright
# images as they come would be told apart by a template. The least scale hides the turned corners.
JITTER = Jitter(rotation=15, scale=(1.35, 1.6), shift=2.0)


def build_faces() -> EmbeddedTask:
    """Whether a grey image shows a face: 100 / 40 / 60 images, no source image used twice.

    Source: 100 faces of "Labeled Faces in the Wild" and 100 patches without a face, 25x25 pixels
    each, as shipped with scikit-image (``skimage.data.lfw_subset``); here enlarged, slightly
    turned and shifted, and exposed alike.
    """
    from skimage.data import lfw_subset

    rng = generator("faces")
    canvases = [_as_canvas(image) for image in lfw_subset()]
    labels = (np.arange(len(canvases)) < FACES).astype(np.int64)
    examples = LabeledImages(_photograph(canvases, rng), labels)
    splits = stratified_split(examples, SIZES, rng)
    return EmbeddedTask("faces", ("other", "face"), without_duplicates(splits))


def _as_canvas(image: np.ndarray) -> Image.Image:
    grey = Image.fromarray((image * 255).astype(np.uint8))
    return grey.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC).convert("RGB")


def _photograph(canvases: list[Image.Image], rng: np.random.Generator) -> Images:
    placed = place_all(canvases, random_poses(rng, len(canvases), JITTER))
    exposed = expose(placed, rng, mean=(0.35, 0.65), deviation=(0.12, 0.22))
    return to_bytes(add_noise(exposed, rng, (0.0, 0.02)))
