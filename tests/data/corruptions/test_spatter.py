"""Spatter: where it is dry nothing changes; water adds light, mud covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statsmerging.data.corruptions.kinds import CONSTANTS, MUD, Strength, spatter
from tests.data.corruptions.pictures import generator, photographs, plain, values

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
