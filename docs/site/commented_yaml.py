"""Reads a file of conf/: its keys, and the comments that document them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent

import yaml


@dataclass(frozen=True)
class Key:
    """One key of a file.

    Attributes:
        path: dotted, within the file.
        default: as it is written; ``None`` for a section with keys of its own.
        comment: what stands above it and beside it, in one line; of keys that follow each other
            without a comment, that of the first.
        comment_line: number of the line where this comment begins.
    """

    path: str
    default: str | None
    comment: str
    comment_line: int


@dataclass(frozen=True)
class ConfigFile:
    """A file of conf/.

    Attributes:
        heading: its first comment.
        package: where Hydra puts its keys, if the file says so.
        base: its list of defaults as YAML, without ``_self_``.
        keys: in their order.
    """

    heading: str
    package: str | None
    base: str
    keys: list[Key]


def read(file: Path) -> ConfigFile:
    """The keys of a file with their comments."""
    text = file.read_text()
    lines = text.splitlines()
    package = re.match(r"# @package (\S+)", text)
    start = 1 if package else 0
    end = next((n for n, line in enumerate(lines) if n >= start and line[:1] != "#"), len(lines))
    node = yaml.compose(text)
    keys = list(_keys(node, lines)) if isinstance(node, yaml.MappingNode) else []
    base = _base(node, lines) if isinstance(node, yaml.MappingNode) else ""
    heading = lines[start:end]
    if keys and keys[0].comment_line <= start:  # the first key's comment is below, without a gap
        heading, rest = _first_sentence(heading)
        line = start + len(heading)
        keys = [
            replace(key, comment=_joined(rest), comment_line=line)
            if key.comment_line == keys[0].comment_line
            else key
            for key in keys
        ]
    return ConfigFile(_joined(heading), package[1] if package else None, base, keys)


def _keys(node: yaml.MappingNode, lines: list[str], above: str = "") -> Iterator[Key]:
    """The keys of a mapping and of those in it; Hydra's list of defaults is none of them."""
    comment, first, last = "", node.start_mark.line, -1
    for name, value in node.value:
        if not above and name.value == "defaults":
            continue
        line = name.start_mark.line
        own, begin = _comment(name, value, lines)
        if own or line != last + 1:
            comment, first = own, begin
        path = f"{above}.{name.value}" if above else str(name.value)
        is_section = isinstance(value, yaml.MappingNode) and not value.flow_style
        if is_section and not _is_data(value, lines):
            yield Key(path, None, comment, first)
            yield from _keys(value, lines, path)
            last = -1
        else:
            yield Key(path, _written(value), comment, first)
            last = _last_line(value)


def _comment(name: yaml.Node, value: yaml.Node, lines: list[str]) -> tuple[str, int]:
    """What stands above a key and beside its value, and the line where that begins."""
    line, indent = name.start_mark.line, " " * name.start_mark.column
    begin = line
    while begin > 0 and lines[begin - 1].startswith(f"{indent}#"):
        begin -= 1
    above = [each for each in lines[begin:line] if "@package" not in each]
    beside = re.search(r"\s# (.*)$", lines[line])
    after = [beside[1]] if beside and value.end_mark.line == line else []
    return _joined(above + after), begin


def _is_data(node: yaml.MappingNode, lines: list[str]) -> bool:
    """Whether a mapping is a long value, such as a list of names, and no section of keys."""
    return len(node.value) > 7 and not any(
        _comment(name, value, lines)[0] for name, value in node.value
    )


def _last_line(node: yaml.Node) -> int:
    """The last line that a value takes; a block's end mark is where the next key begins."""
    return int(node.end_mark.line - (node.end_mark.column == 0 or _is_block(node)))


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _written(node: yaml.Node) -> str:
    """A value as one writes it on the command line; a long mapping one entry a line."""
    if isinstance(node, yaml.MappingNode):
        pairs = [f"{_written(name)}: {_written(value)}" for name, value in node.value]
        return "\n".join(pairs) if _is_block(node) else "{" + ", ".join(pairs) + "}"
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(map(_written, node.value)) + "]"
    quote = node.style or ""
    return f"{quote}{node.value}{quote}"


def _base(node: yaml.MappingNode, lines: list[str]) -> str:
    """The list of defaults as it stands there, with its comments, without ``_self_``."""
    entries = [value for name, value in node.value if name.value == "defaults"]
    if not entries:
        return ""
    begin = entries[0].start_mark.line
    while lines[begin - 1].lstrip().startswith("#"):
        begin -= 1
    block = lines[begin : entries[0].end_mark.line]
    return dedent("\n".join(line for line in block if line.strip() not in ("", "- _self_")))


def _first_sentence(block: list[str]) -> tuple[list[str], list[str]]:
    """The lines up to the first that ends with a full stop, and the others."""
    ends = (n for n, line in enumerate(block, start=1) if line.endswith("."))
    end = next(ends, len(block))
    return block[:end], block[end:]


def _joined(comments: list[str]) -> str:
    return " ".join(each.strip().removeprefix("#").strip() for each in comments)
