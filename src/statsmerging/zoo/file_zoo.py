"""Zoos from files: local experts, FusionBench's on the hub, those of the task_vectors project."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from statsmerging.data.hub import hub_file
from statsmerging.data.images import SuiteImages
from statsmerging.data.suites import Task
from statsmerging.errors import MissingFilesError, UserError, gather_missing, printable
from statsmerging.merging.bank import check_same_tensors
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import file_sha256, key_of
from statsmerging.zoo.backbones import create_backbone, feature_dimension, preprocess_of
from statsmerging.zoo.experts import Expert, Zoo, holds_expert, read_expert, read_expert_head
from statsmerging.zoo.foreign_weights import classifier_in, weights_for
from statsmerging.zoo.formats.foreign import files_of
from statsmerging.zoo.formats.pickled import SUFFIXES
from statsmerging.zoo.head_sources import ProbedHeads, first_file, head_source
from statsmerging.zoo.heads import Head, check_classes, check_features, read_head
from statsmerging.zoo.inference import architecture_key, inference_device
from statsmerging.zoo.settings import (
    PRETRAIN,
    BackboneSettings,
    FusionBenchZooSettings,
    HeadSettings,
    LocalZooSettings,
    TaskVectorsZooSettings,
)
from statsmerging.zoo.weights import FileTensors, Weights, write_weights

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
        """``pretrained``, ``TASK/backbone``, ``TASK/head`` → file; a source may have several."""
        named = {} if self.base is None else {"pretrained": self.base}
        for task, source in self.experts.items():
            for file in files_of(source):
                suffix = f"/{file.name}" if len(files_of(source)) > 1 else ""
                named[f"{task}/backbone{suffix}"] = file
        return {**named, **{f"{task}/head": file for task, file in self.heads.items()}}


def locate(settings: FileZooSettings, tasks: list[str]) -> ZooFiles:
    """Find, or download, every file the zoo needs.

    Raises:
        MissingFilesError: all that are neither there nor to be had.
        UserError: a local expert that is not there.
    """
    if isinstance(settings, LocalZooSettings):
        root = settings.root
        return ZooFiles({task: _local_expert(root, task) for task in tasks})

    def find(name: str, gigabytes: float) -> Path:
        size = f"about {gigabytes:g} GB"
        if isinstance(settings, FusionBenchZooSettings):
            return hub_file(name, "model.safetensors", root=settings.root, size=size)
        path = settings.root / name
        if not path.is_file():
            raise MissingFilesError([f"{path} ({size})"])
        return path

    found: dict[str, Path] = {}
    files = {settings.expert_of(task): settings.sizes.expert for task in tasks}
    files[settings.base] = settings.sizes.base
    gather_missing(
        *(lambda name=name: found.update({name: find(name, files[name])}) for name in files)
    )
    heads = {}
    if isinstance(settings, TaskVectorsZooSettings):
        heads = {task: settings.root / settings.head_of(task) for task in tasks}
    return ZooFiles(
        {task: found[settings.expert_of(task)] for task in tasks}, found[settings.base], heads
    )


def zoo_from_files(
    backbone: BackboneSettings,
    files: ZooFiles,
    heads: HeadSettings,
    images: SuiteImages,
    *,
    cache: Cache,
    accelerator: str,
) -> Zoo:
    """Experts from files. Foreign ones are converted once into the cache and read from there.

    A task without a file stays at θ₀ for others to train, under a head of the configured source;
    its own one is a linear probe.

    Raises:
        UserError: a file that cannot be read, an expert without a head where ``heads=own``, or a
            head with another number of classes than its task.
        MergingError: tensors that do not match the backbone (names and both shapes), or NaN.
    """
    network, pretrained = _pretrained(backbone, files.base)
    device = inference_device(accelerator)
    reader = _ExpertReader(network, pretrained, cache)
    width = feature_dimension(network, preprocess_of(backbone))

    architecture = architecture_key(network, backbone)
    probed = ProbedHeads(network, architecture, pretrained, images, cache, device)

    def own(task: Task) -> Head:
        if task.name not in files.experts:
            return probed(task)
        if task.name in files.heads:
            return read_head(first_file([files.heads[task.name]]))
        source = files.experts[task.name]
        head = read_expert_head(source) if holds_expert(source) else classifier_in(source, network)
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
        return Expert(reader.read(files.experts[task.name]), head)

    experts = {task.name: expert(task) for task in images.suite.tasks}
    return Zoo(network, preprocess_of(backbone), pretrained, experts, device, backbone)


class _ExpertReader:
    """Reads experts of any known format as weights with the backbone's names."""

    def __init__(self, backbone: nn.Module, pretrained: Weights, cache: Cache) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.cache = cache

    def read(self, path: Path) -> Weights:
        """Weights of one expert, on disk until they are used.

        Both ways check that they are finite, a foreign file when it is converted.
        """
        if holds_expert(path):
            weights, found = read_expert(path).state, printable(str(path))
            check_same_tensors(self.pretrained, weights, expected="backbone", found=found)
            return weights
        key = key_of([self.pretrained.sha256, *map(file_sha256, files_of(path))])

        def convert(target: Path) -> None:
            write_weights(target, weights_for(self.backbone, path, self.pretrained))

        return Weights(self.cache.load("converted", f"{key}.safetensors", convert, FileTensors))


def _pretrained(settings: BackboneSettings, base: Path | None) -> tuple[nn.Module, Weights]:
    """The network, and θ₀: the zoo's own, or the backbone's published weights."""
    if base is None and settings.weights == PRETRAIN:
        raise UserError(
            f"backbone.weights={PRETRAIN}: experts from files need the weights they started from; "
            "give a .safetensors file (job=finetune writes pretrained.safetensors)"
        )
    network = create_backbone(settings, load=base is None)
    if base is not None:
        network.load_state_dict(weights_for(network, base))
    # Not copied: nobody trains this network, so one copy of θ₀ serves all.
    return network, Weights({name: value.detach() for name, value in network.state_dict().items()})


def _local_expert(root: Path, task: str) -> Path:
    names = [f"{task}.safetensors", *(f"{task}{suffix}" for suffix in SUFFIXES), task]
    for name in names:
        if (root / name).exists():
            return root / name
    first = printable(str(root / names[0]))
    raise UserError(f"{first}: no such file; nor is there {', '.join(map(printable, names[1:]))}")
