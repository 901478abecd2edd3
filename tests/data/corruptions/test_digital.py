"""Contrast, JPEG and pixelation against their closed forms and PIL's own filters."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from statsmerging.data.corruptions.kinds import (
    contrast,
    jpeg_compression,
    pixelate,
    pixelate_cifar32,
)
from tests.data.corruptions.pictures import generator, photographs, plain, values


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
def test_a_plain_image_stays_as_it_is(distortion: type) -> None:
    assert np.array_equal(values(distortion(plain(77), generator(), 0.4)), values(plain(77)))
