"""Which network it is, as a hash: part of the key of all that the cache keeps of its outputs."""

from __future__ import annotations

import re
import sys

from torch import nn

from statsmerging.records.hashing import json_sha256
from statsmerging.zoo.settings import BackboneSettings


def architecture_key(backbone: nn.Module, settings: BackboneSettings | None) -> str:
    """Hash of the modules as they print themselves, and of the settings they were made with.

    The weights do not tell: under another activation the same ones give other outputs. Nor do
    the modules alone: timm's attention prints no number of heads. Of a user's own classes the code
    may be another next time: it is part of the hash.

    Args:
        settings: ``None`` for a network that no settings made.
    """
    modules = re.sub(r" at 0x[0-9a-f]+", "", repr(backbone))
    made_with = None if settings is None else settings.architecture
    return json_sha256([modules, made_with, *_plugins(backbone)])


def _plugins(backbone: nn.Module) -> list[str]:
    """sha256 of the user's files that the modules come from, as ``load_plugins`` left it there."""
    sources = {type(module).__module__ for module in backbone.modules()}
    hashes = {getattr(sys.modules.get(source), "__sha256__", None) for source in sources}
    return sorted(hash_ for hash_ in hashes if hash_ is not None)
