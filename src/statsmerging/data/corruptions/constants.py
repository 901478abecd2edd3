"""What the severities 1 to 5 mean: facts of the public scripts that made the two benchmarks."""

from __future__ import annotations

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
