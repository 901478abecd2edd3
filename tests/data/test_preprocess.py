"""The geometry of a backbone's input, against timm's and open_clip's own transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from statsmerging.data.pictures import LARGEST_PICTURE, Preprocess
from statsmerging.errors import UserError

HALF = (0.5, 0.5, 0.5)

#: Width and height; odd differences to the input tell how half a pixel is rounded.
SIZES = [(500, 375), (333, 500), (224, 224), (64, 64), (248, 249), (225, 250), (301, 40), (7, 90)]


def noise(size: tuple[int, int]) -> Image.Image:
    width, height = size
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def assert_same_input(preprocess: Preprocess, transform: Any) -> None:
    for size in SIZES:
        image = noise(size)
        pixels = torch.from_numpy(preprocess.resize(image))
        assert pixels.shape == (3, preprocess.image_size, preprocess.image_size)
        expected = torch.as_tensor(transform(image))
        assert torch.equal(preprocess.normalise(pixels[None])[0], expected), size


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.95, 0.9, 0.875])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_input_is_the_one_timm_makes(crop_mode: Any, crop_ratio: float, interpolation: Any) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    transform = create_transform(
        input_size=(3, 224, 224),
        interpolation=interpolation,
        mean=mean,
        std=std,
        crop_pct=crop_ratio,
        crop_mode=crop_mode,
    )
    preprocess = Preprocess(224, mean, std, interpolation, crop_ratio, crop_mode)
    assert_same_input(preprocess, transform)


@pytest.mark.parametrize(("crop_mode", "resize_mode"), [("center", "shortest"), ("squash",) * 2])
def test_input_is_the_one_open_clip_makes(crop_mode: Any, resize_mode: str) -> None:
    transform = open_clip.image_transform(
        224, is_train=False, mean=HALF, std=HALF, interpolation="bicubic", resize_mode=resize_mode
    )
    assert_same_input(Preprocess(224, HALF, HALF, crop_mode=crop_mode), transform)


def test_keys_of_the_whole_square_are_those_of_earlier_caches() -> None:
    whole = Preprocess(32, HALF, HALF)
    assert whole.geometry_key.startswith("d936bc4d0fa1621c")
    assert whole.key.startswith("8ec5326b40d622b1")
    others = [
        Preprocess(32, HALF, HALF, crop_ratio=0.9),
        Preprocess(32, HALF, HALF, crop_mode="squash"),
        Preprocess(32, HALF, HALF, crop_ratio=0.9, crop_mode="squash"),
    ]
    assert len({it.geometry_key for it in [whole, *others]}) == 4
    assert len({it.key for it in [whole, *others]}) == 4


def test_a_thread_of_pixels_is_refused_before_it_fills_the_memory() -> None:
    thread = Image.new("RGB", (1, LARGEST_PICTURE // 224**2 + 1))
    with pytest.raises(UserError, match="of 1 × 1338 pixels is too large when it is 224 pix"):
        Preprocess(224, HALF, HALF).resize(thread)
    assert Preprocess(224, HALF, HALF, crop_mode="squash").resize(thread).shape == (3, 224, 224)
    for crop_mode in ("center", "squash"):
        with pytest.raises(UserError, match="is too large when it is 224000 pixels across"):
            Preprocess(224, HALF, HALF, crop_ratio=0.001, crop_mode=crop_mode).resize(noise((8, 8)))
