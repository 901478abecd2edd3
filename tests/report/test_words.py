"""Settings in words."""

from __future__ import annotations

import pytest

from statsmerging.report.words import setting_words, title_words


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"labels.kind": "soft"}, "labels: soft"),
        ({"granularity": "layer_wise"}, "granularity: layer-wise"),
        ({"statistics.features": ["mean", "singular_values"]}, "statistics: mean, singular values"),
        ({"spectral.rank": None, "merge.memory_map": True}, "directions: none, memory map: yes"),
        ({"trainer.steps": 50}, "trainer steps: 50"),
    ],
)
def test_keys_and_values_become_words(setting: dict[str, object], words: str) -> None:
    assert setting_words(setting) == words


def test_only_settings_of_a_title_are_replaced() -> None:
    title = "toy_suite · vit · suite.first=4 · statistics.features=[mean,variance] · seed 0, 1"
    told = "toy_suite · vit · number of tasks: 4 · statistics: mean, variance · seed 0, 1"
    assert title_words(title) == told
