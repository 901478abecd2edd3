"""The kinds of corruption: one function each, with the constants of its severities 1 to 5.

A new kind is one decorated function here and its name in ``CorruptionKind``.

The constants are facts of the public scripts that made the two benchmarks. ``make_cifar_c.py``
(CIFAR-10-C) is also what the tables of model merging use, for images of any size.
``make_imagenet_c.py`` (ImageNet-C) additionally stores its results as JPEG of quality 85; this
step is left out here.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TypeVar, get_args

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, distance_transform_edt, gaussian_filter, uniform_filter
from skimage.feature import canny

from statsmerging.choices import CorruptionKind

#: Arguments of a distortion, in its order; the docstring of the distortion explains them.
Strength = tuple[float, ...]

#: Takes an RGB image, a random generator and the constants of one severity.
Distortion = Callable[..., Image.Image]
_Kind = TypeVar("_Kind", bound=Distortion)

#: Kind → its function.
DISTORTIONS: dict[str, Distortion] = {}

#: Benchmark → kind → the constants of severities 1 to 5.
CONSTANTS: dict[str, dict[str, tuple[Strength, ...]]] = {"cifar10_c": {}, "imagenet_c": {}}


def severities(**constants: tuple[Strength, ...]) -> Callable[[_Kind], _Kind]:
    """Register a distortion under its function's name.

    Args:
        constants: benchmark → constants of severities 1 to 5; a benchmark that does not define the
            kind is left out.
    """

    def register(distortion: _Kind) -> _Kind:
        DISTORTIONS[distortion.__name__] = distortion
        for benchmark, strengths in constants.items():
            CONSTANTS[benchmark][distortion.__name__] = strengths
        return distortion

    return register


def unit_values(image: Image.Image) -> np.ndarray:
    """H × W × 3, float64, between 0 and 1."""
    return np.asarray(image.convert("RGB")) / 255


def image_of(values: np.ndarray) -> Image.Image:
    """The image of H × W × 3 values: clipped to [0, 1], rounded to 8 bits."""
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


#: Largest angle between the line of motion and the horizontal, in degrees.
STEEPEST = 45


@severities(
    cifar10_c=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    imagenet_c=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
def motion_blur(
    image: Image.Image, generator: np.random.Generator, radius: float, deviation: float
) -> Image.Image:
    """Blur along a line with a uniform random angle within ±45°; the border is extended outward.

    Args:
        radius: half the length of the motion, in pixels.
        deviation: standard deviation of the Gaussian along the motion, in pixels.
    """
    kernel = motion_kernel(int(radius), deviation, generator.uniform(-STEEPEST, STEEPEST))
    return image_of(correlate(unit_values(image), kernel[:, :, np.newaxis], mode="nearest"))


def motion_kernel(radius: int, deviation: float, angle: float) -> np.ndarray:
    """Weights of the pixels around one pixel; they sum to 1.

    The motion starts at the pixel itself, takes 2·radius steps of one pixel, and fades as one half
    of a Gaussian. Every step counts for the pixel nearest to it.

    Args:
        angle: in degrees, from the horizontal to the right downward.

    Returns:
        (4·radius + 1) × (4·radius + 1), float64, with the pixel itself in the middle.
    """
    reach = 2 * radius
    steps = np.arange(reach + 1)
    slope = np.deg2rad(angle)
    # A step halfway between two pixels counts for the first of them, as in ImageMagick.
    rows = np.ceil(steps * np.sin(slope) - 0.5).astype(int)
    columns = np.ceil(steps * np.cos(slope) - 0.5).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel, (reach + rows, reach + columns), np.exp(-((steps / deviation) ** 2) / 2))
    kernel /= kernel.sum()
    return kernel


@severities(
    cifar10_c=((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    imagenet_c=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
)
def impulse_noise(image: Image.Image, generator: np.random.Generator, share: float) -> Image.Image:
    """Set some values to black or white with equal probability ("salt and pepper").

    Args:
        share: expected share of the values that are replaced.
    """
    values = unit_values(image)
    hit = generator.random(values.shape) < share
    extremes = generator.integers(0, 2, values.shape)
    return image_of(np.where(hit, extremes, values))


@severities(
    cifar10_c=((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    imagenet_c=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
)
def gaussian_noise(
    image: Image.Image, generator: np.random.Generator, deviation: float
) -> Image.Image:
    """Add normal noise.

    Args:
        deviation: standard deviation of the noise, for values between 0 and 1.
    """
    values = unit_values(image)
    return image_of(values + generator.normal(scale=deviation, size=values.shape))


@severities(
    cifar10_c=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    imagenet_c=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
)
def pixelate(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Shrink and enlarge again with box filters; the size stays the same.

    Args:
        factor: scale of both sides of the intermediate image.
    """
    return _through_smaller(image, factor, image.size)


#: Side of CIFAR-10's images, in pixels.
CIFAR_SIDE = 32


@severities(cifar10_c=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)))
def pixelate_cifar32(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Shrink to less than 32 × 32 pixels, then enlarge to 32 × 32, the size of the result.

    This is "pixelate" in the published tables of model merging: CIFAR-10-C's script applied to
    images of any size, where its small factors hardly matter beside the loss of resolution.

    Args:
        factor: scale of both sides of the intermediate image, relative to 32 pixels.
    """
    return _through_smaller(image, factor, (CIFAR_SIDE, CIFAR_SIDE))


def _through_smaller(image: Image.Image, factor: float, size: tuple[int, int]) -> Image.Image:
    width, height = (max(1, int(side * factor)) for side in size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return small.resize(size, Image.Resampling.BOX)


#: Colours of water (pale turquoise) and of mud, RGB between 0 and 1.
WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255

#: Least cover of a pixel by mud; where there would be less there is none.
OPAQUE = 0.8

#: The height of a drop is the distance to its edge, in pixels, up to this limit.
HEIGHT = 20

#: Light from one corner: brightens one side of a drop and darkens the other.
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


@severities(
    cifar10_c=(
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1.0, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    imagenet_c=(
        (0.65, 0.3, 4.0, 0.69, 0.6, 0),
        (0.65, 0.3, 3.0, 0.68, 0.6, 0),
        (0.65, 0.3, 2.0, 0.68, 0.5, 0),
        (0.65, 0.3, 1.0, 0.65, 1.5, 1),
        (0.67, 0.4, 1.0, 0.65, 1.5, 1),
    ),
)
def spatter(
    image: Image.Image,
    generator: np.random.Generator,
    mean: float,
    deviation: float,
    smoothing: float,
    threshold: float,
    strength: float,
    mud: float,
) -> Image.Image:
    """Add water, or cover with mud, where smoothed noise is above a threshold.

    The steps and constants are those of the public scripts, which use OpenCV's operators; this
    function uses those of SciPy and scikit-image. Their Canny filter finds other edges than
    OpenCV's. So drops are where the original has them, but their light differs: on noise of 32 to
    224 pixels it correlates with the original's by 0.84 to 0.98 in the mean over images (single
    images with few drops less), and adds up to 0.8 to 1.3 of it (OpenCV 5.0). Mud has no edges.

    Args:
        mean: mean of the noise.
        deviation: standard deviation of the noise before it is smoothed.
        smoothing: standard deviation of the Gaussian that smooths the noise, in pixels.
        threshold: noise above it is liquid.
        strength: for water, the light that the brightest drop adds; for mud, the standard
            deviation of the Gaussian that smooths its outline, in pixels.
        mud: 1 for mud, 0 for water.
    """
    values = unit_values(image)
    noise = generator.normal(mean, deviation, values.shape[:2])
    liquid = gaussian_filter(noise, smoothing, mode="nearest")
    liquid[liquid < threshold] = 0
    if mud:
        cover = gaussian_filter((liquid > threshold).astype(float), strength, mode="nearest")
        cover[cover < OPAQUE] = 0
        cover = cover[:, :, np.newaxis]
        return image_of(values * (1 - cover) + MUD * cover)
    return image_of(values + WATER * _water_light(liquid, strength)[:, :, np.newaxis])


def _water_light(liquid: np.ndarray, strength: float) -> np.ndarray:
    """The light that water adds to each pixel, H × W: more inside a drop, and on its lit side."""
    liquid = np.floor(255 * liquid)
    edges = canny(liquid, sigma=0, low_threshold=50, high_threshold=150)
    if not edges.any():  # no drop at all, or nothing but water
        return np.zeros_like(liquid)
    # The height of the water grows with the distance to the nearest edge of a drop.
    height = np.minimum(distance_transform_edt(~edges), HEIGHT)
    levels = np.floor(uniform_filter(height, 3, mode="mirror"))
    # Histogram equalisation: the least level becomes 0, the greatest 255.
    _, places, counts = np.unique(levels, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts[0]
    equalised = (255 * ranks / max(ranks[-1], 1))[places].reshape(levels.shape)
    # Emboss, so that slopes towards the light are bright, and smooth the result.
    lit = np.clip(correlate(equalised, EMBOSS, mode="mirror"), 0, 255)
    light: np.ndarray = liquid * uniform_filter(lit, 3, mode="mirror")
    if light.any():
        light *= strength / light.max()
    return light


@severities(
    cifar10_c=((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    imagenet_c=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
)
def contrast(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Move all values towards the mean of their channel.

    Args:
        factor: scale of a value's distance from the mean.
    """
    values = unit_values(image)
    means = values.mean(axis=(0, 1))
    return image_of((values - means) * factor + means)


@severities(
    cifar10_c=((80,), (65,), (58,), (50,), (40,)),
    imagenet_c=((25,), (18,), (15,), (10,), (7,)),
)
def jpeg_compression(image: Image.Image, _: np.random.Generator, quality: float) -> Image.Image:
    """Store as JPEG and read back.

    Args:
        quality: on libjpeg's scale from 0 to 95.
    """
    file = BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file)


if (defined := {"none", *DISTORTIONS}) != (declared := set(get_args(CorruptionKind))):
    raise TypeError(f"CorruptionKind and the kinds here differ: {sorted(defined ^ declared)}")
