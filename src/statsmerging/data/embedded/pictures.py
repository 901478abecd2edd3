"""Tasks that ask from which picture a crop was taken: surfaces, photographs, microscopy."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .appearance import Floats, add_noise, expose, recolour, relight, to_bytes
from .crops import Cropping, Picture, crop_splits
from .task import EmbeddedTask, Images, without_duplicates

SURFACES = ("brick", "grass", "gravel", "coins", "text", "page")
PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle",
    "camera",
    "china",
    "flower",
)
MICROSCOPY = ("cell", "ihc", "retina", "hubble_deep_field", "moon")


def build_surfaces() -> EmbeddedTask:
    """Which of six grey surfaces a crop shows; brightness and contrast vary.

    Source: scikit-image's sample pictures. Crops of 36 to 56 pixels, resized to 32x32.
    """
    from skimage import data

    pictures = [_as_rgb(getattr(data, name)()) for name in SURFACES]
    cropping = Cropping(tile=56, side=(36, 56), least_deviation=6.0)
    splits = crop_splits("surfaces", pictures, cropping, _vary_surface)
    return EmbeddedTask("surfaces", SURFACES, without_duplicates(splits))


def build_photographs() -> EmbeddedTask:
    """Which of eight photographs a crop shows; hue, saturation and light vary.

    Source: scikit-image's sample pictures, and ``china`` and ``flower`` of scikit-learn. Crops of
    36 to 48 pixels, resized to 32x32. Tiles of plain sky or wall are left out.
    """
    from skimage import data
    from sklearn.datasets import load_sample_images

    # The motorcycle comes as a stereo pair with its disparity; the left view is enough.
    loaded = {
        "motorcycle": data.stereo_motorcycle()[0],
        **dict(zip(("china", "flower"), load_sample_images().images, strict=True)),
    }
    pictures = [
        _as_rgb(loaded[name] if name in loaded else getattr(data, name)()) for name in PHOTOGRAPHS
    ]
    cropping = Cropping(tile=48, side=(36, 48), least_deviation=12.0)
    splits = crop_splits("photographs", pictures, cropping, _vary_photograph)
    return EmbeddedTask("photographs", PHOTOGRAPHS, without_duplicates(splits))


def build_microscopy() -> EmbeddedTask:
    """Which of five pictures of science a crop shows; any hue, and exposed alike.

    Source: scikit-image's sample pictures: a cell, an immunohistochemical stain, a retina, the
    Hubble deep field, and the moon. Crops of 40 to 64 pixels, resized to 32x32.
    """
    from skimage import data

    pictures = [
        _as_rgb(data.cell()),
        _as_rgb(data.immunohistochemistry()),
        _halved(_as_rgb(data.retina())),
        _as_rgb(data.hubble_deep_field()),
        _as_rgb(data.moon()),
    ]
    cropping = Cropping(tile=64, side=(40, 64), least_deviation=4.0)
    splits = crop_splits("microscopy", pictures, cropping, _vary_microscopy)
    return EmbeddedTask("microscopy", MICROSCOPY, without_duplicates(splits))


def _as_rgb(picture: np.ndarray) -> Picture:
    return np.asarray(Image.fromarray(picture).convert("RGB"))


def _halved(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).reduce(2))


def _vary_surface(crops: Floats, rng: np.random.Generator) -> Images:
    lit = relight(crops, rng, brightness=(0.75, 1.2), contrast=(0.75, 1.2))
    return to_bytes(add_noise(lit, rng, (0.0, 0.02)))


def _vary_photograph(crops: Floats, rng: np.random.Generator) -> Images:
    coloured = recolour(crops, rng, hue=0.1, saturation=(0.6, 1.0))
    lit = relight(coloured, rng, brightness=(0.8, 1.2), contrast=(0.8, 1.2))
    return to_bytes(add_noise(lit, rng, (0.0, 0.02)))


def _vary_microscopy(crops: Floats, rng: np.random.Generator) -> Images:
    coloured = recolour(crops, rng, hue=np.pi, saturation=(0.0, 1.0))
    exposed = expose(coloured, rng, mean=(0.3, 0.7), deviation=(0.1, 0.2))
    return to_bytes(add_noise(exposed, rng, (0.0, 0.02)))
