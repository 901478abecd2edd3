"""The kinds of corruption, one by one."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import correlate

from statsmerging.data.corruptions.kinds import (
    CONSTANTS,
    MUD,
    STEEPEST,
    Strength,
    contrast,
    gaussian_noise,
    impulse_noise,
    jpeg_compression,
    motion_blur,
    motion_kernel,
    pixelate,
    pixelate_cifar32,
    spatter,
)
from tests.data.corruptions.pictures import generator, photographs, plain, values

# Motion blur: pixel by pixel what ImageMagick computes


radii = st.integers(1, 20)


deviations = st.floats(0.5, 15)


angles = st.floats(-STEEPEST, STEEPEST)


#: A 5 × 7 image, and what ImageMagick 6.9.11 makes of it: ``-motion-blur 6x1.5+30.5``, ``6x2-20``.
PICTURE = [
    [0, 37, 148, 77, 80, 157, 52],
    [101, 197, 111, 99, 161, 41, 251],
    [202, 219, 54, 219, 202, 3, 134],
    [47, 103, 233, 181, 203, 43, 213],
    [148, 105, 136, 241, 164, 161, 232],
]


BLURRED = {
    (6, 1.5, 30.5): [
        [101, 84, 124, 103, 100, 203, 159],
        [138, 153, 159, 125, 107, 101, 189],
        [177, 213, 130, 184, 153, 126, 181],
        [95, 142, 219, 175, 196, 153, 224],
        [138, 143, 178, 201, 180, 202, 232],
    ],
    (6, 2, -20.0): [
        [55, 88, 108, 90, 92, 87, 52],
        [136, 130, 102, 121, 85, 107, 177],
        [174, 129, 131, 180, 158, 130, 174],
        [91, 174, 183, 146, 132, 129, 186],
        [156, 138, 174, 172, 180, 200, 223],
    ],
}


class _FixedAngle:
    """Stands for a generator that draws this angle."""

    def __init__(self, angle: float) -> None:
        self.angle = angle

    def uniform(self, low: float, high: float) -> float:
        assert low <= self.angle <= high
        return self.angle


@pytest.mark.parametrize(("radius", "deviation", "angle"), BLURRED)
def test_it_is_imagemagicks(radius: int, deviation: float, angle: float) -> None:
    kernel = motion_kernel(radius, deviation, angle)
    blurred = np.rint(correlate(np.array(PICTURE, dtype=float), kernel, mode="nearest"))
    assert blurred.tolist() == BLURRED[radius, deviation, angle]


@given(radii, deviations, angles)
def test_the_weights_sum_to_one(radius: int, deviation: float, angle: float) -> None:
    kernel = motion_kernel(radius, deviation, angle)
    assert kernel.shape == (4 * radius + 1, 4 * radius + 1)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1)


@given(radii, deviations, angles)
def test_the_weights_lie_along_the_angle(radius: int, deviation: float, angle: float) -> None:
    rows, columns = np.nonzero(motion_kernel(radius, deviation, angle))
    down, right = rows - 2 * radius, columns - 2 * radius
    slope = np.deg2rad(angle)
    along = right * np.cos(slope) + down * np.sin(slope)
    across = down * np.cos(slope) - right * np.sin(slope)
    half_a_diagonal = 0.5**0.5 + 1e-9
    assert np.abs(across).max() <= half_a_diagonal
    assert -half_a_diagonal <= along.min()
    assert along.max() <= 2 * radius + half_a_diagonal


def test_a_horizontal_kernel_is_half_a_gaussian() -> None:
    kernel = motion_kernel(6, 2.0, 0.0)
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    assert np.allclose(kernel[12, 12:], weights / weights.sum())
    assert np.count_nonzero(kernel) == 13


@pytest.mark.parametrize("angle", [-45.0, 0.0, 45.0])
def test_a_point_becomes_a_line(angle: float) -> None:
    point = plain(0, side=33)
    point.putpixel((16, 16), (255, 255, 255))
    blurred = values(motion_blur(point, _FixedAngle(angle), 6, 2.5))  # type: ignore[arg-type]
    rows, columns = np.nonzero(blurred[:, :, 0])
    assert len(rows) >= 6
    assert np.array_equal(rows - 16, np.rint((columns - 16) * np.tan(np.deg2rad(angle))))
    assert blurred.sum() == pytest.approx(3 * 255, rel=0.02)


@given(st.integers(0, 255), st.integers(0, 99))
def test_a_plain_image_stays_as_it_is_under_motion_blur(value: int, seed: int) -> None:
    blurred = motion_blur(plain(value, side=9), generator(seed), 9, 2.5)
    assert np.array_equal(values(blurred), values(plain(value, side=9)))


def test_the_angle_is_drawn() -> None:
    image = photographs(32)[0]
    first, second = (values(motion_blur(image, generator(seed), 6, 2)) for seed in (0, 1))
    assert not np.array_equal(first, second)


# Noise: the requested share and deviation


@pytest.mark.parametrize("deviation", [0.04, 0.1])
def test_gaussian_noise_has_its_deviation_on_grey(deviation: float) -> None:
    noise = values(gaussian_noise(plain(128, side=200), generator(), deviation)) - 128
    # 120 000 values: the standard errors are below 0.3 % of the deviation, rounding adds 1/12.
    assert noise.mean() == pytest.approx(0, abs=0.25)
    assert noise.std() == pytest.approx(np.hypot(255 * deviation, 12**-0.5), rel=0.01)
    channels = noise.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.02


def test_gaussian_noise_stays_within_black_and_white() -> None:
    dark = values(gaussian_noise(plain(0, side=100), generator(), 0.1))
    assert dark.min() == 0
    assert (dark == 0).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("share", [0.01, 0.27])
def test_impulse_noise_hits_its_share_half_black_half_white(share: float) -> None:
    noisy = values(impulse_noise(plain(128, side=200), generator(), share))
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert (noisy == 0).mean() == pytest.approx(share / 2, rel=0.1)
    assert (noisy == 255).mean() == pytest.approx(share / 2, rel=0.1)


def test_impulse_noise_leaves_the_other_values_alone() -> None:
    image = photographs(32)[0]
    clean, noisy = values(image), values(impulse_noise(image, generator(), 0.05))
    changed = clean != noisy
    assert 0 < changed.mean() < 0.1
    assert set(np.unique(noisy[changed])) <= {0, 255}


# Contrast, JPEG and pixelation, against their closed forms and PIL's own filters


@pytest.mark.parametrize("factor", [0.75, 0.05, 1.0])
def test_contrast_draws_towards_the_mean_of_each_channel(factor: float) -> None:
    image = photographs(32)[0]
    clean = values(image)
    means = clean.mean(axis=(0, 1))
    expected = np.clip((clean - means) * factor + means, 0, 255)
    assert np.abs(values(contrast(image, generator(), factor)) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("quality", [80, 7])
def test_jpeg_is_one_round_trip(quality: int) -> None:
    image = photographs(64)[1]
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    expected = values(Image.open(file))
    assert np.array_equal(values(jpeg_compression(image, generator(), quality)), expected)
    assert not np.array_equal(expected, values(image))


def test_pixelate_by_a_half_gives_blocks_of_their_mean() -> None:
    image = photographs(32)[2]
    blocks = values(image).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    result = values(pixelate(image, generator(), 0.5)).reshape(16, 2, 16, 2, 3)
    assert np.array_equal(result, np.broadcast_to(result[:, :1, :, :1], result.shape))
    assert np.abs(result[:, 0, :, 0] - blocks).max() <= 1


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0.95, 0.65, 0.25]))
def test_pixelate_keeps_the_size_of_any_image(width: int, height: int, factor: float) -> None:
    image = photographs(64)[0].crop((0, 0, width, height))
    small = (max(1, int(width * factor)), max(1, int(height * factor)))
    box = Image.Resampling.BOX
    expected = image.resize(small, box).resize((width, height), box)
    result = pixelate(image, generator(), factor)
    assert result.size == (width, height)
    assert np.array_equal(values(result), values(expected))


def test_pixelate_cifar32_goes_through_32_pixels_from_any_size() -> None:
    wide = photographs(200)[0].crop((0, 0, 200, 90))
    box = Image.Resampling.BOX
    expected = wide.resize((28, 28), box).resize((32, 32), box)
    result = pixelate_cifar32(wide, generator(), 0.9)
    assert result.size == (32, 32)
    assert np.array_equal(values(result), values(expected))


@pytest.mark.parametrize("distortion", [contrast, pixelate])
def test_a_plain_image_stays_as_it_is_under_contrast_and_pixelate(distortion: type) -> None:
    assert np.array_equal(values(distortion(plain(77), generator(), 0.4)), values(plain(77)))


# Spatter: dry pixels are unchanged; water adds light, mud covers


ALL = [strength for table in CONSTANTS.values() for strength in table["spatter"]]


WATER_ONLY = [strength for strength in ALL if not strength[-1]]


MUD_ONLY = [strength for strength in ALL if strength[-1]]


@pytest.mark.parametrize("strength", ALL)
def test_most_of_the_image_stays_dry(strength: Strength) -> None:
    image = photographs(64)[0]
    change = np.abs(values(spatter(image, generator(), *strength)) - values(image)).max(axis=2)
    assert 0.5 < (change == 0).mean() < 1


@pytest.mark.parametrize("strength", WATER_ONLY)
def test_water_adds_turquoise_light(strength: Strength) -> None:
    added = values(spatter(plain(0, side=64), generator(), *strength))
    light = strength[4]
    # The brightest drop adds its strength, in the colour (175, 238, 238), and none adds more.
    assert np.abs(added.max(axis=(0, 1)) - light * np.array([175, 238, 238])).max() <= 1
    assert np.abs(added[:, :, 0] - added[:, :, 1] * 175 / 238).max() <= 1
    assert values(spatter(plain(255), generator(), *strength)).min() == 255


#: Green light of the public script, with OpenCV 5.0, on a black image of 20 × 20 pixels with the
#: noise of seed 0 and ImageNet-C's severity 3; rows 8 to 14 are dry.
UPPER_LIGHT = [
    [0, 24, 38, 42, 28, 7, 4, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22, 41],
    [0, 0, 31, 34, 24, 7, 4, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 18, 31],
    [0, 0, 21, 32, 36, 33, 33, 57, 83, 0, 0, 0, 0, 0, 0, 0, 0, 10, 18, 30],
    [0, 0, 0, 0, 69, 70, 72, 85, 98, 0, 0, 0, 0, 0, 0, 0, 0, 4, 7, 11],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 17, 27, 31],
    [42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 17, 37, 0, 0, 0],
    [79, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 30, 52, 0, 0, 0, 0],
    [96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0],
]
LOWER_LIGHT = [
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 59, 72],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 52, 78, 100, 114],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 50, 83, 102, 107, 117],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 71, 104, 113, 108, 119],
]


def test_water_is_near_the_original() -> None:
    original = np.vstack([UPPER_LIGHT, np.zeros((7, 20)), LOWER_LIGHT])
    strength = CONSTANTS["imagenet_c"]["spatter"][2]
    found = values(spatter(plain(0, side=20), generator(), *strength))[:, :, 1]
    assert np.corrcoef(found.ravel(), original.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("strength", MUD_ONLY)
def test_mud_covers_at_least_four_fifths_of_a_pixel(strength: Strength) -> None:
    result = values(spatter(plain(255, side=64), generator(), *strength)) / 255
    cover = (1 - result) / (1 - MUD)
    muddy = cover.max(axis=2) > 0
    assert 0 < muddy.mean() < 0.5
    assert cover[muddy].min() >= 0.79
    assert cover.max() <= 1.01


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(ALL), st.integers(0, 99))
def test_images_of_any_size_can_be_spattered(
    width: int, height: int, strength: Strength, seed: int
) -> None:
    image = photographs(64)[0].crop((0, 0, width, height))
    result = spatter(image, generator(seed), *strength)
    assert result.size == (width, height)
    again = spatter(image, generator(seed), *strength)
    assert np.array_equal(values(result), values(again))


def test_without_any_drop_nothing_changes() -> None:
    image = photographs(32)[0]
    for mud in (0, 1):
        dry = spatter(image, generator(), 0.1, 0.01, 1.0, 0.7, 0.5, mud)
        assert np.array_equal(values(dry), values(image))
