"""The configuration reference: every key of conf/ with its comment, its default and what is valid.

A key is documented once, where it stands in conf/: the comments are read there. What is valid comes
from the typed settings (``statsmerging.app.config``) and the parameters of the methods.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import valid_values
from commented_yaml import ConfigFile, Key, read

#: The pages' folder on the site.
FOLDER = "reference/configuration"
#: Folders of conf/ that are no groups of choices: their files are parts of others.
PARTS = ("catalogue",)
#: A value longer than this is a block of its own.
LONG = 60
#: ``- trainer: default   # optimisation of the learner: conf/trainer/``
_GROUP = re.compile(r"^  - (\w+):(?P<choice>[^#\n]*)# (?P<what>[^:;]+)", re.MULTILINE)

Valid = Callable[[str], str]


def pages(conf: Path) -> dict[str, str]:
    """Address on the site → Markdown; one page for config.yaml and one for each group."""
    groups = [each.name for each in conf.iterdir() if each.is_dir() and each.name not in PARTS]
    made = {address(group): _group_page(conf, group) for group in sorted(groups)}
    return {address("index"): _overview(conf, sorted(groups)), **made}


def address(group: str) -> str:
    """Where the site has the page of a group."""
    return f"{FOLDER}/{group}.md"


def _overview(conf: Path, groups: list[str]) -> str:
    """The groups, what each decides and its default; then the keys that belong to no group."""
    decided = _decided(conf)
    rows = [
        f"| [`{group}`]({group}.md) | {_prose(what)} | {f'`{choice}`' if choice else ''} |"
        for group in groups
        for choice, what in [decided.get(group, ("", "where the jobs of a sweep run"))]
    ]
    file = read(conf / "config.yaml")
    return "\n".join(
        [
            "# Configuration",
            "",
            _prose(file.heading),
            "",
            "These pages are made from the comments in `conf/` and from the types that check the",
            "values: what stands here is what runs.",
            "",
            "## Groups",
            "",
            "| group | decides | default |",
            "| --- | --- | --- |",
            *rows,
            "",
            "## Keys of no group",
            "",
            *_definitions(file, "", valid_values.of_config(None)),
        ]
    )


def _decided(conf: Path) -> Mapping[str, tuple[str, str]]:
    """Group → its default choice and what it decides, from the list of defaults."""
    text = (conf / "config.yaml").read_text()
    return {
        found[1]: (found["choice"].strip(), found["what"].strip())
        for found in _GROUP.finditer(text)
    }


def _group_page(conf: Path, group: str) -> str:
    default, what = _decided(conf).get(group, ("", "where the jobs of a sweep run"))
    lines = [f"# {group}", "", f"{_prose(what[:1].upper() + what[1:])}.", ""]
    if default and default != "null":
        lines += [f"The default is `{group}={default}`; a file of `conf/{group}/` is a choice.", ""]
    files = {file.relative_to(conf / group): read(file) for file in _files(conf / group, default)}
    for name, file in files.items():
        lines += _choice(_explained(file, files), group, name.with_suffix(""))
    return "\n".join(lines)


def _files(folder: Path, default: str) -> list[Path]:
    """The default first, then the other choices, then the folders with parts and variants."""
    return sorted(
        folder.rglob("*.yaml"), key=lambda file: (file.stem != default, len(file.parts), file)
    )


def _explained(file: ConfigFile, group: Mapping[Path, ConfigFile]) -> ConfigFile:
    """A key that a choice only changes has its comment where it is introduced, in another file."""
    known = {key.path: key.comment for each in group.values() for key in each.keys if key.comment}
    keys = [replace(key, comment=key.comment or known.get(key.path, "")) for key in file.keys]
    return replace(file, keys=keys)


def _choice(file: ConfigFile, group: str, name: Path) -> list[str]:
    """The section of one choice."""
    *folders, choice = name.parts
    if group == "hydra":
        title, prefix = f"hydra/{name.parent}={choice}", f"hydra.{name.parent}"
    elif folders == ["base"]:
        title, prefix = f"{name}: a base of others", ""
    else:
        title, prefix = f"{group}={name}", group
    if file.package is not None:
        prefix = "" if file.package == "_global_" else file.package
    lines = [f"## {title}", "", _prose(file.heading), ""]
    if file.base:
        lines += ["Builds on:", "", "```yaml", file.base, "```", ""]
    kind = next((key.default for key in file.keys if key.path == "kind"), None)
    valid = valid_values.of_method(choice) if group == "method" else valid_values.of_config(kind)
    return lines + _definitions(file, prefix, valid, mark=f"{name.as_posix()}-")


def _definitions(file: ConfigFile, prefix: str, valid: Valid, mark: str = "") -> list[str]:
    """A definition list; keys without a comment share that of the key right above them."""
    lines: list[str] = []
    for comment, together in groupby(file.keys, key=lambda key: key.comment):
        entries = list(together)
        for key in entries:
            lines.append(_term(key, f"{prefix}.{key.path}" if prefix else key.path, valid, mark))
        blocks = [key.default for key in entries if key.default and len(key.default) > LONG]
        lines += ["", f":   {_prose(comment) or 'See above.'}", ""]
        for block in blocks:
            lines += ["    ```yaml", *(f"    {line}" for line in block.splitlines()), "    ```", ""]
    return lines


def _term(key: Key, path: str, valid: Valid, mark: str) -> str:
    """Key, default and valid values in one line."""
    term = f"`{path}`{{ #{mark}{path} }}"
    if key.default == "???":
        term += " must be given"
    elif key.default and len(key.default) <= LONG:
        term += f" = `{key.default}`"
    allowed = valid(path)
    return f"{term} · {allowed}" if allowed else term


def _prose(comment: str) -> str:
    """A comment as Markdown: what is between backticks stays, signs lose their meaning."""
    parts = comment.split("`")
    for at in range(0, len(parts), 2):
        text = re.sub(r"([\\*_\[\]|#])", r"\\\1", html.escape(parts[at], quote=False))
        text = re.sub(r"docs/([\w\\]+)\.md", _page, text)
        parts[at] = re.sub(r"conf/(\w+)/(?!\w)", r"[conf/\1/](\1.md)", text)
    return "`".join(parts)


def _page(name: re.Match[str]) -> str:
    return f"[{name[0]}](../../{name[1].replace(chr(92), '')}.md)"
