"""All kinds together: severities, determinism, and settings that are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from statsmerging.data.corruptions.corrupt import corrupt, corruption_key
from statsmerging.data.corruptions.kinds import CONSTANTS, DISTORTIONS
from statsmerging.data.settings import CLEAN, CorruptionSettings
from tests.data.corruptions.pictures import generator, photographs, values

DEFINED = [(constants, kind) for constants, table in CONSTANTS.items() for kind in table]
KINDS = list(DISTORTIONS)


def settings(**values: Any) -> CorruptionSettings:
    return CorruptionSettings.model_validate(values)


def distance(kind: str, strength: tuple[float, ...]) -> float:
    """Mean distance from the clean image, over three photographs and the same random numbers."""
    pairs = [
        (image, DISTORTIONS[kind](image, generator(seed), *strength))
        for image in photographs(32)
        for seed in range(4)
    ]
    return float(np.mean([np.abs(values(clean) - values(other)).mean() for clean, other in pairs]))


def test_settings_tables_and_distortions_know_the_same_kinds() -> None:
    kinds = set(get_args(CorruptionSettings.model_fields["kind"].annotation))
    assert kinds - {"none"} == set(DISTORTIONS) == set(CONSTANTS["cifar10_c"])
    assert set(DISTORTIONS) - set(CONSTANTS["imagenet_c"]) == {"pixelate_cifar32"}
    names = set(get_args(CorruptionSettings.model_fields["constants"].annotation))
    assert names == set(CONSTANTS)


@pytest.mark.parametrize(("constants", "kind"), DEFINED)
def test_a_higher_severity_changes_more(constants: str, kind: str) -> None:
    distances = [distance(kind, strength) for strength in CONSTANTS[constants][kind]]
    assert len(distances) == 5
    # From water to mud, which is a smaller change at first: the scripts themselves are so.
    parts = [distances[:3], distances[3:]] if kind == "spatter" else [distances]
    for part in parts:
        # CIFAR-10-C's motion blurs 3 and 4 differ far out in the Gaussian alone.
        assert all(milder <= harsher for milder, harsher in pairwise(part))
        assert 0 < part[0] < part[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_corrupted_alike_in_any_order(kind: str) -> None:
    images = photographs(32)
    wanted = settings(kind=kind, severity=5)
    forward = [values(corrupt(image, wanted)) for image in images]
    backward = [values(corrupt(image, wanted)) for image in reversed(images)]
    for first, second in zip(forward, reversed(backward), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["gaussian_noise", "impulse_noise", "motion_blur", "spatter"])
def test_seeds_and_images_draw_other_random_numbers(kind: str) -> None:
    image = photographs(32)[0]
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    first, again, image_changed = (
        values(corrupt(shown, settings(kind=kind, seed=seed)))[8:24, 8:24]
        for shown, seed in ((image, 0), (image, 1), (other, 0))
    )
    assert not np.array_equal(first, again)
    assert not np.array_equal(first, image_changed)


def test_noise_is_pinned() -> None:
    """Any process draws the same numbers; where they change, so do all results."""
    grey = Image.new("RGB", (2, 2), (128, 128, 128))
    noisy = corrupt(grey, settings(kind="gaussian_noise", severity=2))
    assert values(noisy)[0].tolist() == [[116, 116, 134], [109, 139, 138]]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_all_modes_become_rgb(kind: str, mode: str) -> None:
    image = photographs(32)[0].convert(mode)
    found = corrupt(image, settings(kind=kind))
    assert found.mode == "RGB"
    expected = corrupt(image.convert("RGB"), settings(kind=kind))
    assert np.array_equal(values(found), values(expected))


def test_the_key_names_all_that_matters_to_an_image() -> None:
    given = settings(kind="contrast")
    same = settings(kind="contrast", protocol="test_only", tasks=["digits"])
    others = [
        settings(kind="spatter"),
        settings(kind="contrast", severity=3),
        settings(kind="contrast", constants="imagenet_c"),
        settings(kind="contrast", seed=1),
    ]
    assert corruption_key(given) == corruption_key(same)
    assert len({corruption_key(other) for other in [given, *others]}) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "fog"}, "Input should be 'none', 'motion_blur'"),
        ({"kind": "contrast", "severity": 0}, "greater than or equal to 1"),
        ({"kind": "contrast", "severity": 6}, "less than or equal to 5"),
        ({"constants": "mnist_c"}, "Input should be 'cifar10_c' or 'imagenet_c'"),
        ({"protocol": "train"}, "Input should be 'adapt_and_test' or 'test_only'"),
        (
            {"kind": "pixelate_cifar32", "constants": "imagenet_c"},
            "imagenet_c does not define pixelate_cifar32",
        ),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**wrong)


def test_training_images_are_out_of_reach() -> None:
    published = settings(kind="contrast")
    assert not published.reaches("digits", "train")
    assert published.reaches("digits", "validation")
    assert published.reaches("digits", "test")
    test_only = settings(kind="contrast", protocol="test_only")
    assert not test_only.reaches("digits", "validation")
    assert test_only.reaches("digits", "test")
    some = settings(kind="contrast", tasks=["faces"])
    assert some.reaches("faces", "test")
    assert not some.reaches("digits", "test")
    assert not CLEAN.reaches("digits", "test")


def test_the_label_says_what_was_done() -> None:
    assert CLEAN.label == "none"
    assert settings(kind="motion_blur").label == "motion_blur 2, cifar10_c, adapt_and_test"
    some = settings(kind="motion_blur", tasks=["a", "b"], protocol="test_only", severity=5)
    assert some.label == "motion_blur 5, cifar10_c, test_only, on a b"
