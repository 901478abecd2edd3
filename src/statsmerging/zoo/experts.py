"""A zoo: one network, the experts that are merged, and one frozen head per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from statsmerging.data.hub import hub_file
from statsmerging.data.images import SuiteImages
from statsmerging.data.pictures import Preprocess
from statsmerging.data.suites import Task
from statsmerging.errors import MissingFilesError, UserError, gather_missing, printable
from statsmerging.merging.state_dicts import check_finite, check_same_tensors
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import file_sha256, key_of, state_sha256
from statsmerging.zoo.backbones import create_backbone, feature_dimension, preprocess_of
from statsmerging.zoo.formats.checkpoints import files_of
from statsmerging.zoo.formats.foreign import NORMALISES, weights_for
from statsmerging.zoo.formats.pickled import SUFFIXES
from statsmerging.zoo.head_sources import ProbedHeads, first_file, head_source
from statsmerging.zoo.heads import (
    Head,
    check_classes,
    check_features,
    classifier_in,
    head_from,
    read_head,
)
from statsmerging.zoo.network import Network, inference_device
from statsmerging.zoo.settings import (
    PRETRAIN,
    BackboneSettings,
    FusionBenchZooSettings,
    HeadsSettings,
    LocalZooSettings,
    TaskVectorsZooSettings,
)
from statsmerging.zoo.weights import FileTensors, Weights, write_weights

_BACKBONE, _HEAD = "backbone.", "head."


@dataclass(frozen=True)
class Expert:
    """A model fine-tuned for one task: its backbone weights θ_k and its frozen head."""

    state: Weights
    head: Head


@dataclass(frozen=True)
class Zoo:
    """The experts that are merged, the weights they started from, and their network.

    Attributes:
        network: the architecture of all experts.
        pretrained: θ₀ by tensor name.
        experts: one expert per task, of seen and unseen tasks.
    """

    network: Network
    pretrained: Weights
    experts: Mapping[str, Expert]

    @property
    def preprocess(self) -> Preprocess:
        """How images become the input of the network."""
        return self.network.preprocess

    @property
    def device(self) -> torch.device:
        """The device of forward passes and task vectors."""
        return self.network.device

    @cached_property
    def hashes(self) -> dict[str, str]:
        """``pretrained``, ``TASK/backbone``, ``TASK/head`` → sha256 of the weights."""
        hashes = {"pretrained": self.pretrained.sha256}
        for task, expert in self.experts.items():
            hashes[f"{task}/backbone"] = expert.state.sha256
            hashes[f"{task}/head"] = state_sha256(expert.head.state_dict())
        return hashes


def write_expert(path: Path, expert: Expert) -> None:
    """One safetensors file with ``backbone.*`` and ``head.*``."""
    state = {f"{_BACKBONE}{name}": value for name, value in expert.state.items()}
    head = {f"{_HEAD}{name}": value for name, value in expert.head.state_dict().items()}
    write_weights(path, {**state, **head})


def write_zoo(folder: Path, zoo: Zoo) -> None:
    """``pretrained.safetensors`` and ``experts/TASK.safetensors``: what ``zoo=local`` reads."""
    write_weights(folder / "pretrained.safetensors", zoo.pretrained)
    for task, expert in zoo.experts.items():
        write_expert(folder / "experts" / f"{task}.safetensors", expert)


def holds_expert(path: Path) -> bool:
    """Whether a file was written by ``write_expert``, or in its layout."""
    if path.suffix != ".safetensors" or path.is_dir():
        return False
    names = FileTensors(path)
    return any(name.startswith(_BACKBONE) for name in names) and all(
        name.startswith((_BACKBONE, _HEAD)) for name in names
    )


def read_expert(path: Path) -> Expert:
    """Read what ``write_expert`` wrote; the backbone's tensors stay on disk until they are used.

    Raises:
        UserError: a file that cannot be read, or one without ``head.weight`` and ``head.bias``.
        MergingError: NaN or infinite weights (names the tensor).
    """
    head = read_expert_head(path)
    check_finite(FileTensors(path), found=printable(str(path)))
    return Expert(Weights(FileTensors(path, _BACKBONE)), head)


def read_expert_head(path: Path) -> Head:
    """The head alone of what ``write_expert`` wrote.

    Raises:
        UserError: a file that cannot be read, or one without ``head.weight`` and ``head.bias``.
    """
    head = FileTensors(path, _HEAD)
    if not {"weight", "bias"} <= set(head):
        raise UserError(
            f"{printable(str(path))}: an expert needs backbone.* and head.weight, head.bias"
        )
    return head_from(head, normalises=NORMALISES in head)


FileZooSettings = LocalZooSettings | FusionBenchZooSettings | TaskVectorsZooSettings


@dataclass(frozen=True)
class ZooFiles:
    """The files of a zoo.

    Attributes:
        experts: task → file, index of a sharded one, or folder of an adapter or of a model.
        base: the pre-trained CLIP, if the zoo brings it.
        heads: task → file of its head, where heads have files of their own.
    """

    experts: dict[str, Path] = field(default_factory=dict)
    base: Path | None = None
    heads: dict[str, Path] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Path]:
        """``pretrained``, ``TASK/backbone``, ``TASK/head`` → file.

        Each file of a source of several has an entry, ``TASK/backbone/NAME``.
        """
        named = {} if self.base is None else {"pretrained": self.base}
        for task, source in self.experts.items():
            for file in files_of(source):
                suffix = f"/{file.name}" if len(files_of(source)) > 1 else ""
                named[f"{task}/backbone{suffix}"] = file
        return {**named, **{f"{task}/head": file for task, file in self.heads.items()}}


def locate(settings: FileZooSettings, tasks: list[str]) -> ZooFiles:
    """Find, or download, every file of the zoo.

    Raises:
        MissingFilesError: names all files that are missing and cannot be downloaded.
        UserError: a missing local expert.
    """
    if isinstance(settings, LocalZooSettings):
        experts = {}
        for task in tasks:
            names = [f"{task}.safetensors", *(f"{task}{suffix}" for suffix in SUFFIXES), task]
            first, *alternatives = (settings.root / name for name in names)
            source = next((path for path in (first, *alternatives) if path.exists()), None)
            if source is None:
                names_of_alternatives = ", ".join(printable(path.name) for path in alternatives)
                raise UserError(
                    f"{printable(str(first))}: no such file; nor is there {names_of_alternatives}"
                )
            experts[task] = source
        return ZooFiles(experts)

    def find(name: str, gigabytes: float) -> Path:
        size = f"about {gigabytes:g} GB"
        if isinstance(settings, FusionBenchZooSettings):
            return hub_file(name, "model.safetensors", root=settings.root, size=size)
        path = settings.root / name
        if not path.is_file():
            raise MissingFilesError([f"{path} ({size})"])
        return path

    sizes = {settings.expert_of(task): settings.sizes.expert for task in tasks}
    sizes[settings.base] = settings.sizes.base
    paths: dict[str, Path] = {}
    gather_missing(
        *(lambda name=name: paths.update({name: find(name, sizes[name])}) for name in sizes)
    )
    heads = {}
    if isinstance(settings, TaskVectorsZooSettings):
        heads = {task: settings.root / settings.head_of(task) for task in tasks}
    experts = {task: paths[settings.expert_of(task)] for task in tasks}
    return ZooFiles(experts, paths[settings.base], heads)


def zoo_from_files(
    backbone: BackboneSettings,
    files: ZooFiles,
    heads: HeadsSettings,
    images: SuiteImages,
    *,
    cache: Cache,
    accelerator: str,
) -> Zoo:
    """A zoo of experts from files. Foreign files are converted once, into the cache.

    The expert of a task without a file is θ₀, under a head of the configured source; a linear probe
    is its own head. The caller replaces it, for example by a distilled one.

    Raises:
        UserError: a file that cannot be read, an expert without a head where ``heads=own``, or a
            head with another number of classes than its task.
        MergingError: tensors that do not match the backbone (names and both shapes), or NaN.
    """
    if files.base is None and backbone.weights == PRETRAIN:
        raise UserError(
            f"backbone.weights={PRETRAIN}: experts from files need the weights they started from; "
            "give a .safetensors file (job=finetune writes pretrained.safetensors)"
        )
    module = create_backbone(backbone, load=files.base is None)
    if files.base is not None:
        module.load_state_dict(weights_for(module, files.base))
    width = feature_dimension(module, preprocess_of(backbone))
    network = Network(module, preprocess_of(backbone), inference_device(accelerator), backbone)
    pretrained = network.initial
    probed = ProbedHeads(network, pretrained, images, cache)

    def own(task: Task) -> Head:
        if task.name not in files.experts:
            return probed(task)
        if task.name in files.heads:
            return read_head(first_file([files.heads[task.name]]))
        source = files.experts[task.name]
        head = read_expert_head(source) if holds_expert(source) else classifier_in(source, module)
        if head is None:
            raise UserError(
                f"{printable(str(source))} has no head: choose heads=zero_shot, probed or files"
            )
        return head

    source = head_source(heads, own, backbone, probed=probed, base=files.base, cache=cache)

    def expert(task: Task) -> Expert:
        head = source(task)
        check_classes(head, task)
        check_features(head, task, width)
        if task.name not in files.experts:
            return Expert(pretrained, head)
        return Expert(_backbone_weights(files.experts[task.name], module, pretrained, cache), head)

    experts = {task.name: expert(task) for task in images.suite.tasks}
    return Zoo(network, pretrained, experts)


def _backbone_weights(path: Path, module: nn.Module, pretrained: Weights, cache: Cache) -> Weights:
    """Weights of one expert with the module's names; they stay on disk until they are used.

    They are checked to be finite: those of a foreign file when it is converted.
    """
    if holds_expert(path):
        weights = read_expert(path).state
        check_same_tensors(pretrained, weights, expected="backbone", found=printable(str(path)))
        return weights
    key = key_of([pretrained.sha256, *map(file_sha256, files_of(path))])

    def convert(target: Path) -> None:
        write_weights(target, weights_for(module, path, pretrained))

    return Weights(cache.load("converted", f"{key}.safetensors", convert, FileTensors))
