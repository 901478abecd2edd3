"""Absolute paths are shortened to their last name before a record leaves the machine.

``/home/me/data/mini_eight`` becomes ``…/mini_eight``. Whether a text holds a path is seen from the
text, not from the key it belongs to, so that no key can be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from statsmerging.store.received import texts

#: Stands for the folders that are left out.
HIDDEN = "…"

#: Folders whose entries are named after people.
_HOMES = ("home", "Users")

#: How an absolute path begins: at the root, in a home folder, on a drive or a host of Windows.
_BEGINNING = (
    r"(?:file://(?=/))?(?:~[\w.-]*/|/(?=[^\s/])|(?<!:)//(?=\w)|[A-Za-z]:[\\/](?!/)|\\\\(?=\w))"
)

#: What must stand before a path within a sentence, if anything does, and what ends the path.
_BEFORE = r"""(?<![^\s"'`(\[{<>=:,;|&@])"""
_REST = r"""[^\s"'`<>|;:,()\[\]{}]*"""

#: A text that is a path to its end, or an argument ``KEY=PATH``.
_WHOLE = re.compile(rf"([^\s=/\\~]*=)?({_BEGINNING}.*)", re.DOTALL)


class HiddenPaths:
    """Shortens absolute paths; those of the configs stay different if they were.

    Of two that end in the same name, in the order of the paths, the second becomes ``…2/data``:
    runs that differ by a path alone stay two settings.

    Args:
        configs: of the runs; a text in them that begins as a path is one to its end.
    """

    def __init__(self, configs: Iterable[Any]) -> None:
        known = sorted(
            {text for config in configs for text in texts(config) if re.match(_BEGINNING, text)}
        )
        count: dict[str, int] = {}
        self._short: dict[str, str] = {}
        for path in known:
            name = _last_name(path)
            count[name] = count.get(name, 0) + 1
            self._short[path] = _shortened(name, count[name])
        # A known path may have blanks, and what lies below it is a path too.
        longest_first = "|".join(re.escape(path) for path in sorted(known, key=len, reverse=True))
        below = rf"(?:{longest_first})(?![\w-])(?:[\\/]{_REST})?|" if known else ""
        self._in_sentence = re.compile(rf"{_BEFORE}(?:{below}{_BEGINNING}{_REST})")

    def in_record(self, value: Any) -> Any:
        """A copy of a config or a manifest."""
        return _with_texts(value, self._entry)

    def in_sentences(self, value: Any) -> Any:
        """A copy of a record with messages, in which a path ends before the text does."""
        return _with_texts(value, self._sentence)

    def _entry(self, text: str) -> str:
        whole = _WHOLE.fullmatch(text)
        if whole is None:
            return self._sentence(text)
        return (whole[1] or "") + self._path(whole[2])

    def _sentence(self, text: str) -> str:
        return self._in_sentence.sub(lambda found: self._path(found[0]), text)

    def _path(self, path: str) -> str:
        return self._short.get(path) or _shortened(_last_name(path))


def _shortened(name: str, number: int = 1) -> str:
    first = HIDDEN if number == 1 else f"{HIDDEN}{number}"
    return f"{first}/{name}" if name else first


def _last_name(path: str) -> str:
    """The last name in a path; none if it is the name of a person."""
    *folders, name = re.split(r"[\\/]+", path.rstrip("\\/"))
    personal = name.startswith("~") or (folders and folders[-1] in _HOMES)
    return "" if personal else name


def _with_texts(value: Any, change: Any) -> Any:
    """A copy of nested lists and mappings with other texts, keys included."""
    if isinstance(value, dict):
        return {_with_texts(key, change): _with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
