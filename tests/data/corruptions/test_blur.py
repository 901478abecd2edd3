"""Motion blur: a half Gaussian along a line, pixel by pixel what ImageMagick computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate

from statsmerging.data.corruptions.kinds import STEEPEST, motion_blur, motion_kernel
from tests.data.corruptions.pictures import generator, photographs, plain, values

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
def test_a_plain_image_stays_as_it_is(value: int, seed: int) -> None:
    blurred = motion_blur(plain(value, side=9), generator(seed), 9, 2.5)
    assert np.array_equal(values(blurred), values(plain(value, side=9)))


def test_the_angle_is_drawn() -> None:
    image = photographs(32)[0]
    first, second = (values(motion_blur(image, generator(seed), 6, 2)) for seed in (0, 1))
    assert not np.array_equal(first, second)
