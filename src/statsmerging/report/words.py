"""Settings as a reader says them: words where the records have keys and values of the config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Keys whose last part says too little, or is no word of the field.
WORDS = {
    "corruption.kind": "corruption",
    "corruption.severity": "severity",
    "learner.kind": "learner",
    "learner.vectors": "coefficients of vectors",
    "labels.kind": "labels",
    "labels.min_confidence": "least confidence",
    "labels.restrict": "classes of labels",
    "learning.episodes": "episodes",
    "learning.images": "learning images per task",
    "learning.split": "learned from",
    "spectral.leave_out": "left out",
    "spectral.rank": "directions",
    "statistics.features": "statistics",
    "statistics.of": "statistics of",
    "statistics.rank": "singular values",
    "statistics.standardise": "standardised over",
    "suite.first": "number of tasks",
    "suite.name": "suite",
    "backbone.label": "backbone",
    "zoo.seed": "zoo",
    "zoo.kind": "checkpoints",
}

#: Last parts of keys that say nothing without the part before them.
_DEPENDENT = {"kind", "name", "label", "seed", "of", "rank", "root", "steps", "images"}

#: ``KEY=VALUE`` in a title.
_SETTING = re.compile(r"([a-z]\w*(?:\.\w+)*)=(.*)", re.DOTALL)


def key_words(key: str) -> str:
    """A dotted key in words: ``labels.kind`` → ``labels``, ``trainer.weight_decay`` → its end."""
    if key in WORDS:
        return WORDS[key]
    *section, last = key.split(".")
    told = [*section[-1:], last] if last in _DEPENDENT else [last]
    return " ".join(told).replace("_", " ")


def value_words(value: Any) -> str:
    """A value in words: ``layer_wise`` → ``layer-wise``, lists with commas, ``null`` → ``none``."""
    if isinstance(value, list):
        return ", ".join(map(value_words, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return re.sub(r"(?<=\w)_wise\b", "-wise", str(value)).replace("_", " ")


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def setting_words(setting: Mapping[str, Any]) -> str:
    """Settings in words: ``labels: soft, number of tasks: 4``."""
    return ", ".join(f"{key_words(key)}: {value_words(value)}" for key, value in setting.items())


def title_words(title: str) -> str:
    """A title with its ``KEY=VALUE`` items in words; all others stay."""

    def worded(item: str) -> str:
        found = _SETTING.fullmatch(item)
        if found is None:
            return item
        value = found[2]
        listed = re.fullmatch(r"\[(.*)\]", value, re.DOTALL)
        return setting_words({found[1]: listed[1].split(",") if listed else value})

    return " · ".join(map(worded, title.split(" · ")))
