"""What the severities 1 to 5 mean: facts of the public scripts that made the two benchmarks."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, distance_transform_edt, gaussian_filter, uniform_filter
from skimage.feature import canny

#: Arguments of a distortion, in its order; the distortions document them.
Strength = tuple[float, ...]


#: ``make_cifar_c.py``; model merging's tables use it for images of any size. Its ``pixelate`` goes
#: to 32 × 32 pixels in whatever shape the image came: here ``pixelate_cifar32``.
CIFAR10_C: dict[str, tuple[Strength, ...]] = {
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    "pixelate_cifar32": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1.0, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
}


#: ``make_imagenet_c.py``, which also stores its results as JPEG of quality 85; that is left out.
IMAGENET_C: dict[str, tuple[Strength, ...]] = {
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "spatter": (
        (0.65, 0.3, 4.0, 0.69, 0.6, 0),
        (0.65, 0.3, 3.0, 0.68, 0.6, 0),
        (0.65, 0.3, 2.0, 0.68, 0.5, 0),
        (0.65, 0.3, 1.0, 0.65, 1.5, 1),
        (0.67, 0.4, 1.0, 0.65, 1.5, 1),
    ),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
}


CONSTANTS = {"cifar10_c": CIFAR10_C, "imagenet_c": IMAGENET_C}


def unit_values(image: Image.Image) -> np.ndarray:
    """H × W × 3, float64, between 0 and 1."""
    return np.asarray(image.convert("RGB")) / 255


def image_of(values: np.ndarray) -> Image.Image:
    """The image of such values: clipped to [0, 1], rounded to 8 bits."""
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


#: The line of motion is at most so far from the horizontal, in degrees.
STEEPEST = 45


def motion_blur(
    image: Image.Image, generator: np.random.Generator, radius: float, deviation: float
) -> Image.Image:
    """Blur along a line, whose angle is uniform within ±45°; the image's edge goes on beyond it.

    Args:
        radius: half the length of the motion, in pixels.
        deviation: of the Gaussian that fades along it, in pixels.
    """
    kernel = motion_kernel(int(radius), deviation, generator.uniform(-STEEPEST, STEEPEST))
    return image_of(correlate(unit_values(image), kernel[:, :, np.newaxis], mode="nearest"))


def motion_kernel(radius: int, deviation: float, angle: float) -> np.ndarray:
    """Weights of the pixels around one pixel; they sum to 1.

    The motion starts at the pixel itself, takes 2·radius steps of one pixel, and fades as one half
    of a Gaussian. Every step falls on the pixel nearest to it.

    Args:
        angle: in degrees, from the horizontal to the right downward.

    Returns:
        (4·radius + 1) × (4·radius + 1), float64, the pixel itself in the middle.
    """
    reach = 2 * radius
    steps = np.arange(reach + 1)
    slope = np.deg2rad(angle)
    # A step that falls halfway between two pixels goes to the first of them, as in ImageMagick.
    rows = np.ceil(steps * np.sin(slope) - 0.5).astype(int)
    columns = np.ceil(steps * np.cos(slope) - 0.5).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel, (reach + rows, reach + columns), np.exp(-((steps / deviation) ** 2) / 2))
    kernel /= kernel.sum()
    return kernel


#: Side of CIFAR-10's images, in pixels.
CIFAR_SIDE = 32


def contrast(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Draw all values towards the mean of their channel.

    Args:
        factor: what is left of their distance.
    """
    values = unit_values(image)
    means = values.mean(axis=(0, 1))
    return image_of((values - means) * factor + means)


def jpeg_compression(image: Image.Image, _: np.random.Generator, quality: float) -> Image.Image:
    """Store as JPEG and read back.

    Args:
        quality: on libjpeg's scale from 0 to 95.
    """
    file = BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file)


def pixelate(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Shrink and enlarge again, by box filters; the size stays.

    Args:
        factor: what is left of both sides in between.
    """
    return _through(image, factor, image.size)


def pixelate_cifar32(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """The same through a square of 32 × 32 pixels, which is also the size of the result.

    This is what the published tables of model merging call pixelate: CIFAR-10-C's script on images
    of any size, so that its small factors hardly matter beside the loss of resolution.

    Args:
        factor: what is left of the 32 pixels in between.
    """
    return _through(image, factor, (CIFAR_SIDE, CIFAR_SIDE))


def _through(image: Image.Image, factor: float, size: tuple[int, int]) -> Image.Image:
    width, height = (max(1, int(side * factor)) for side in size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return small.resize(size, Image.Resampling.BOX)


def gaussian_noise(
    image: Image.Image, generator: np.random.Generator, deviation: float
) -> Image.Image:
    """Add normal noise.

    Args:
        deviation: standard deviation, of values between 0 and 1.
    """
    values = unit_values(image)
    return image_of(values + generator.normal(scale=deviation, size=values.shape))


def impulse_noise(image: Image.Image, generator: np.random.Generator, share: float) -> Image.Image:
    """Set values to black or white, either with equal chance ("salt and pepper").

    Args:
        share: of the values that are hit.
    """
    values = unit_values(image)
    hit = generator.random(values.shape) < share
    extremes = generator.integers(0, 2, values.shape)
    return image_of(np.where(hit, extremes, values))


#: Pale turquoise and mud brown, RGB between 0 and 1.
WATER = np.array([175, 238, 238]) / 255


MUD = np.array([63, 42, 20]) / 255


#: Mud covers a pixel from this much of it on.
OPAQUE = 0.8


#: A drop is as high as the distance to its edge, in pixels, up to this.
HEIGHT = 20


#: Light from one corner: raises one side of a drop and sinks the other.
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


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

    The steps and constants are those of the public scripts, which use OpenCV's operators; the
    operators here are those of SciPy and scikit-image. Their Canny filter finds other edges than
    OpenCV's, so drops have other outlines: an image correlates with the original's, and is not it.

    Args:
        mean: of the noise.
        deviation: of the noise, before it is smoothed.
        smoothing: standard deviation of the Gaussian that smooths the noise, in pixels.
        threshold: above it there is liquid.
        strength: of water, the light that the brightest drop adds; of mud, the standard deviation
            of the Gaussian that smooths its outline, in pixels.
        mud: 1 for mud, 0 for water.
    """
    values = unit_values(image)
    noise = generator.normal(mean, deviation, values.shape[:2])
    liquid = gaussian_filter(noise, smoothing, mode="nearest")
    liquid[liquid < threshold] = 0
    if mud:
        cover = _mud_cover(liquid > threshold, strength)[:, :, np.newaxis]
        return image_of(values * (1 - cover) + MUD * cover)
    return image_of(values + WATER * _water_light(liquid, strength)[:, :, np.newaxis])


def _mud_cover(wet: np.ndarray, smoothing: float) -> np.ndarray:
    """How much of each pixel mud covers, H × W: nothing, or at least ``OPAQUE``."""
    cover: np.ndarray = gaussian_filter(wet.astype(float), smoothing, mode="nearest")
    cover[cover < OPAQUE] = 0
    return cover


def _water_light(liquid: np.ndarray, strength: float) -> np.ndarray:
    """The light that water adds to each pixel, H × W: more inside a drop, and on its lit side."""
    liquid = np.floor(255 * liquid)
    edges = canny(liquid, sigma=0, low_threshold=50, high_threshold=150)
    if not edges.any():  # no drop at all, or nothing but water
        return np.zeros_like(liquid)
    height = np.minimum(distance_transform_edt(~edges), HEIGHT)
    height = _equalised(np.floor(uniform_filter(height, 3, mode="mirror")))
    lit = np.clip(correlate(height, EMBOSS, mode="mirror"), 0, 255)
    light: np.ndarray = liquid * uniform_filter(lit, 3, mode="mirror")
    if light.any():
        light *= strength / light.max()
    return light


def _equalised(levels: np.ndarray) -> np.ndarray:
    """Histogram equalisation of whole numbers: the least becomes 0, the greatest 255."""
    _, places, counts = np.unique(levels, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts[0]
    equalised: np.ndarray = 255 * ranks / max(ranks[-1], 1)
    return equalised[places].reshape(levels.shape)
