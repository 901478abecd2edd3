"""Noise: the share and the deviation that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from statsmerging.data.corruptions.kinds import gaussian_noise, impulse_noise
from tests.data.corruptions.pictures import generator, photographs, plain, values


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
