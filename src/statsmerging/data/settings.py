"""Settings of the images: the suite, the learning images, corruptions, published data sets."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    DirectoryPath,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from statsmerging.choices import (
    CorruptionConstants,
    CorruptionKind,
    CorruptionProtocol,
    LearningSplit,
    Split,
    SuiteKind,
)
from statsmerging.settings import Settings
from statsmerging.store.received import is_plain_name


def _on_the_hub(address: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", address):
        raise ValueError("is no address on the hub, OWNER/NAME")
    return address


def _plain(name: str) -> str:
    """Names of methods and of a catalogue's tasks become parts of file names."""
    if not is_plain_name(name):
        raise ValueError("no plain name: letters, digits and _ . + -, the first a letter or digit")
    return name


def _of_one_folder(name: str) -> str:
    """Names of tasks are those of folders, and become parts of file names."""
    if name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise ValueError("no name of a folder or file")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
TaskName = Annotated[str, AfterValidator(_of_one_folder)]


class DatasetLayout(Settings):
    """The columns, classes and splits of a data set that make a task, where they are ambiguous.

    Attributes:
        subset: name of a configuration, if the data set has several.
        image: the image column; ``None`` if there is only one.
        label: the label column; ``None`` if it is called ``label`` or is the only one of classes.
        classes: class names in label order, if the label column holds bare numbers.
        splits: our split → the data set's name for it, if it is not one of the usual names.
    """

    subset: str | None = None
    image: str | None = None
    label: str | None = None
    classes: list[str] | None = None
    splits: dict[Split, str] = Field(default_factory=dict)


class CatalogueEntry(DatasetLayout):
    """One data set of the hub.

    Attributes:
        id: ``OWNER/NAME`` on the hub.
        counts: published number of images per split; a split that is not named is not checked.
        gigabytes: size of the download, for the message if it is missing.
    """

    id: Annotated[str, AfterValidator(_on_the_hub)]
    counts: dict[Split, PositiveInt] = Field(default_factory=dict)
    gigabytes: PositiveFloat


class SuiteSettings(Settings):
    """Which tasks there are, and where their images are."""

    name: str
    kind: SuiteKind
    root: DirectoryPath | None
    tasks: list[TaskName] | None
    unseen: list[TaskName]
    splits: dict[str, list[TaskName]]
    split: str | None
    first: int | None = Field(ge=2)
    image: str | None = None
    label: str | None = None
    catalogue: dict[PlainName, CatalogueEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _split_is_known(self) -> Self:
        if self.split is not None and self.split not in self.splits:
            known = ", ".join(self.splits) or "none (suite.splits is empty)"
            raise ValueError(f"split={self.split}: choose one of {known}")
        return self


class LearningSettings(Settings):
    """What the learner learns from.

    Attributes:
        split: whose images.
        held_out: share of each task's images that nothing learns from: hyper-parameters are chosen
            on them. 0: they are chosen on the learning images.
        images: at most this many of each task, of those that are not held out; ``None``: all.
        seed: of the images that are drawn.
        episodes: number of subsets of the seen experts, of which every step merges one; ``None``
            or 0: every step merges all experts. A method has its own, with this as default.
    """

    split: LearningSplit
    held_out: float = Field(default=0.2, ge=0, le=0.5)
    images: PositiveInt | None
    seed: int = Field(ge=0)
    episodes: NonNegativeInt | None = None


class CorruptionSettings(Settings):
    """A kind of corruption, its severity, and the images it is applied to. Never training images.

    Attributes:
        kind: what is done to an image; ``none`` does nothing.
        severity: 1 (mild) to 5.
        constants: the benchmark that defines the severities.
        protocol: ``adapt_and_test`` corrupts the validation images, from which coefficients are
            learned and hyper-parameters chosen, and the test images; ``test_only`` corrupts the
            test images alone.
        tasks: the tasks whose images are corrupted; ``None`` means all tasks.
        seed: seed of the random numbers. It does not depend on the seed of the merging step, so
            that all seeds of that step see the same images.
    """

    kind: CorruptionKind = "none"
    severity: int = Field(default=2, ge=1, le=5)
    constants: CorruptionConstants = "cifar10_c"
    protocol: CorruptionProtocol = "adapt_and_test"
    tasks: list[str] | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_defined(self) -> Self:
        if self.kind != "none":
            # Imported here: it loads SciPy and scikit-image, which clean images do not need.
            from statsmerging.data.corruptions.kinds import CONSTANTS

            if self.kind not in CONSTANTS[self.constants]:
                raise ValueError(f"{self.constants} does not define {self.kind}")
        return self

    @property
    def label(self) -> str:
        """The corruption as it is written in results and tables."""
        if self.kind == "none":
            return self.kind
        on = [] if self.tasks is None else [f"on {' '.join(self.tasks)}"]
        return ", ".join([f"{self.kind} {self.severity}", self.constants, self.protocol, *on])

    def reaches(self, task: str, split: Split) -> bool:
        """Whether images of this split of a task are corrupted."""
        splits = ("test",) if self.protocol == "test_only" else ("validation", "test")
        return (
            self.kind != "none" and split in splits and (self.tasks is None or task in self.tasks)
        )


#: Nothing is corrupted.
CLEAN = CorruptionSettings()
