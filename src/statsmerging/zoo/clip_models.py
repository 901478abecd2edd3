"""open_clip's models and tokenizers, without the log lines they print on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from statsmerging.records.errors import UserError
from statsmerging.zoo.settings import BackboneSettings


def create_clip(settings: BackboneSettings, *, from_hub: bool) -> Any:
    """The whole CLIP that the settings name.

    Args:
        from_hub: with the published weights ``tag``; otherwise freshly initialised.

    Raises:
        UserError: open_clip has no such model, or no such weights of it.
    """
    import open_clip

    _check_name(settings)
    if from_hub:
        _check_tag(settings)
    tag = settings.tag if from_hub else None
    with _quiet():
        return open_clip.create_model(settings.name, pretrained=tag, **settings.arguments)


def own_preprocessing(settings: BackboneSettings) -> dict[str, Any]:
    """How open_clip makes an image the input of the weights ``tag``: size, mean, std and so on.

    Raises:
        UserError: open_clip has no such model, or no such weights of it.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    _check_name(settings)
    published = {}
    if settings.tag and open_clip.list_pretrained_tags_by_model(settings.name):
        _check_tag(settings)
        published = open_clip.get_pretrained_cfg(settings.name, settings.tag)
    side = open_clip.get_model_config(settings.name)["vision_cfg"].get("image_size", 224)
    own: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(size=side), published)
    return own


def _check_name(settings: BackboneSettings) -> None:
    import open_clip

    if settings.name not in open_clip.list_models():
        raise UserError(unknown_name("open_clip", settings.name, open_clip.list_models()))


def _check_tag(settings: BackboneSettings) -> None:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(settings.name)
    if settings.tag and settings.tag not in tags:
        raise UserError(unknown_tag(settings, tags))


def clip_tokenizer(settings: BackboneSettings) -> Callable[[list[str]], Tensor]:
    """Texts → token numbers, N × context length."""
    import open_clip

    with _quiet():
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(settings.name)
    return tokenizer


def unknown_name(library: str, name: str, available: list[str]) -> str:
    """The message for a name that the library does not know, with close ones."""
    by_lower_case = {other.lower(): other for other in available}
    close = get_close_matches(name.lower(), by_lower_case, n=5, cutoff=0.3)
    names = ", ".join(by_lower_case[other] for other in close)
    return f"backbone.name={name}: {library} has no such model; close names: {names}"


def unknown_tag(settings: BackboneSettings, available: list[str]) -> str:
    """The message for weights that the library does not know, with those that it knows."""
    return (
        f"backbone.tag={settings.tag}: {settings.library} has no such weights of {settings.name}; "
        f"it has {', '.join(available) or 'none'}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    # open_clip reports every step on the root logger, and that weights are still random.
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
