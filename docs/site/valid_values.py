"""What is valid for a key, in words: from the typed settings and the parameters of the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, get_args, get_type_hints

from statsmerging.app.config import Config
from statsmerging.learning.settings import LearnedMethodSettings
from statsmerging.merging.methods import methods

Schema = Mapping[str, Any]

_WORDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "null": "`null`",
}
_PATHS = {"path": "path", "file-path": "file", "directory-path": "folder"}
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def of_config(kind: str | None) -> Callable[[str], str]:
    """Dotted key of the whole config → its valid values; "" if the settings know no such key.

    Args:
        kind: of the choice, in groups whose choices have settings of their own.
    """
    return lambda path: _in_words(_field(_config(), path, kind))


def of_method(name: str) -> Callable[[str], str]:
    """``method.NAME.parameter`` → its valid values."""
    kind = methods().get(name)
    if kind is None:
        learned = LearnedMethodSettings.model_json_schema()
        return lambda path: _in_words(_field(learned, path.rsplit(".")[-1], None))
    hints = get_type_hints(kind)
    ranges = {each.name: _parameter(hints[each.name], each.metadata) for each in fields(kind)}
    return lambda path: ranges.get(path.rsplit(".")[-1], "")


@cache
def _config() -> Schema:
    return Config.model_json_schema()


def _field(schema: Schema, path: str, kind: str | None) -> Schema:
    """The schema of a dotted key; empty if there is none."""
    definitions = schema.get("$defs", {})

    def resolved(node: Schema) -> Schema:
        if "discriminator" in node and kind:
            node = {"$ref": node["discriminator"]["mapping"][kind]}
        references = [each["$ref"] for each in [node, *node.get("anyOf", [])] if "$ref" in each]
        return definitions[references[0].rsplit("/")[-1]] if references else node

    node = schema
    for part in path.split("."):
        node = resolved(node)
        node = node.get("properties", {}).get(part) or {}
    return resolved(node)


def _in_words(node: Schema) -> str:
    """A JSON schema in words."""
    if "anyOf" in node:
        return " or ".join(filter(None, map(_in_words, node["anyOf"])))
    values = node.get("enum") or ([node["const"]] if "const" in node else [])
    if values:
        return " \\| ".join(
            f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in values
        )
    kind = node.get("type", "")
    if kind == "array":
        items = _in_words(node.get("items", {}))
        return f"list of {items}" if items else "list"
    word = _PATHS.get(node.get("format", ""), "") or _WORDS.get(kind, "")
    limits = [f"{text} {node[key]:g}" for key, text in _LIMITS.items() if key in node]
    return " ".join([word, " and ".join(limits)]).strip()


def _parameter(kind: object, limits: Mapping[str, float]) -> str:
    """A method's parameter in words."""
    choices = get_args(kind)
    if choices:
        return " \\| ".join(f"`{choice}`" for choice in choices)
    words: Mapping[object, str] = {
        bool: _WORDS["boolean"],
        int: _WORDS["integer"],
        float: _WORDS["number"],
    }
    word = words.get(kind, "")
    return " ".join([word, " and ".join(f"{word} {at:g}" for word, at in limits.items())]).strip()
