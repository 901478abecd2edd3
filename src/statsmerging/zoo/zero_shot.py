"""Zero-shot heads: class names and prompts through CLIP's text tower."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from statsmerging.data.suites import Task
from statsmerging.errors import UserError, printable
from statsmerging.merging.bank import check_same_tensors
from statsmerging.progress import track
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import json_sha256, key_of
from statsmerging.zoo.formats.clip_names import WHOLE_CLIP, whole_clip
from statsmerging.zoo.formats.foreign import read_file
from statsmerging.zoo.formats.wrappers import without_wrapper, wrapper_of
from statsmerging.zoo.heads import Head, read_head
from statsmerging.zoo.settings import BASE, HUB, BackboneSettings, ZeroShotHeadsSettings
from statsmerging.zoo.weights import Weights, write_weights


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


class ZeroShotHeads:
    """Makes the zero-shot head of any task, once.

    Args:
        settings: prompts and class names.
        backbone: the open_clip model whose image tower is merged.
        base: file of the whole pre-trained CLIP, for ``text: base``.
        cache: of heads.

    Raises:
        UserError: a backbone without a text tower, or ``text: base`` without such a file.
    """

    def __init__(
        self,
        settings: ZeroShotHeadsSettings,
        backbone: BackboneSettings,
        base: Path | None,
        cache: Cache,
    ) -> None:
        if backbone.library != "open_clip":
            raise UserError(
                f"heads=zero_shot needs a backbone of open_clip, {backbone.label} is of "
                f"{backbone.library}"
            )
        if settings.text == BASE and base is None:
            raise UserError("heads.text=base: this zoo brings no CLIP; give heads.text=hub or FILE")
        self.settings = settings
        self.backbone = backbone
        self.cache = cache
        self.file = {BASE: base, HUB: None}.get(settings.text, Path(settings.text))

    def __call__(self, task: Task) -> Head:
        """The head of one task, C × D, on features of unit length."""
        classes = self.settings.class_names.get(task.name, list(task.classes))
        if len(classes) != len(task.classes):
            raise UserError(
                f"heads.class_names.{task.name}: {len(classes)} names, the data set has "
                f"{len(task.classes)} classes"
            )
        templates = self.settings.templates.get(task.name, self.settings.templates["default"])
        spoken = [name.replace("_", " ") for name in classes]

        def write(path: Path) -> None:
            tokenize = clip_tokenizer(self.backbone)
            head = zero_shot_head(self._clip, tokenize, spoken, templates, description=task.name)
            write_weights(path, head.state_dict())

        key = key_of([self._text_key(), json_sha256([spoken, templates])])
        return self.cache.load("heads", f"{key}.safetensors", write, read_head)

    def _text_key(self) -> str:
        """What determines the text tower."""
        source = self.backbone.tag or "" if self.file is None else self._weights.sha256
        return json_sha256([self.backbone.architecture, source])

    @cached_property
    def _weights(self) -> Weights:
        return Weights(read_file(self.file).tensors) if self.file else Weights({})

    @cached_property
    def _clip(self) -> Any:
        clip = create_clip(self.backbone, from_hub=self.file is None)
        if self.file is not None:
            wrapper = wrapper_of(self._weights, WHOLE_CLIP)
            state = whole_clip(without_wrapper(self._weights, wrapper))
            found = printable(str(self.file))
            check_same_tensors(clip.state_dict(), state, expected="CLIP", found=found)
            clip.load_state_dict(state)
        return clip.eval()


@torch.inference_mode()
def zero_shot_head(
    clip: Any,
    tokenize: Callable[[list[str]], Tensor],
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    description: str,
) -> Head:
    """One row a class: the mean direction of its prompts' features, times CLIP's logit scale.

    Args:
        clip: the whole model of open_clip.
        tokenize: texts → token numbers.
        classes: C names as a prompt says them.
        templates: prompts with ``{}`` for the class.
        description: shown beside the progress bar.
    """
    rows = []
    for name in track(classes, f"prompts of {description}", total=len(classes)):
        tokens = tokenize([template.format(name) for template in templates])
        directions = nn.functional.normalize(clip.encode_text(tokens), dim=-1)
        rows.append(nn.functional.normalize(directions.mean(0), dim=0))
    weight = clip.logit_scale.exp() * torch.stack(rows)
    return Head(weight.float(), torch.zeros(len(rows)), normalises=True)
