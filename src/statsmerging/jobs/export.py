"""``job=export``: the merged model of a finished run, for open_clip, timm and transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pandas as pd
from torch import Tensor, nn

from statsmerging.data.hub import closed_hub
from statsmerging.errors import UserError, printable
from statsmerging.merging.state_dicts import check_same_tensors
from statsmerging.report.card import model_card
from statsmerging.runs.directory import MANIFEST
from statsmerging.runs.finished import FinishedRun, read_finished_run
from statsmerging.runs.layer_tables import read_coefficients
from statsmerging.store.files import new_path, write_json, write_text
from statsmerging.store.hashing import file_sha256
from statsmerging.store.received import ReceivedError
from statsmerging.zoo.backbones import create_backbone, preprocess_of, received_backbone
from statsmerging.zoo.formats.clip_names import to_hugging_face, vision_config
from statsmerging.zoo.settings import BackboneSettings
from statsmerging.zoo.weights import read_weights, write_weights

if TYPE_CHECKING:
    from statsmerging.app.run import Run

log = logging.getLogger(__name__)

WEIGHTS, CARD, HF_CONFIG = "model.safetensors", "README.md", "config.json"


@dataclass(frozen=True)
class MergedRun:
    """A finished merge run, and the file of its merged weights."""

    finished: FinishedRun
    weights: Path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a run directory.

        Raises:
            UserError: the folder holds no finished merge run, or it is damaged.
        """
        finished = read_finished_run(path)
        weights = finished.file("merged.safetensors")
        if weights is None:
            rows = finished.results.methods.values()
            if any(row.running_statistics == "per_task" for row in rows):
                raise UserError(
                    f"job.run={path}: its models have running statistics of each task's own; "
                    "merge.running_statistics=pooled gives one model to export"
                )
            raise UserError(
                f"job.run={path} is no finished merge run: it has no merged.safetensors"
            )
        return cls(finished, weights)

    def coefficients(self) -> pd.DataFrame:
        """Coefficients of the method whose model this is; no rows where it learned none."""
        path = self.finished.file("coefficients.parquet")
        if path is None:
            return pd.DataFrame()
        table = read_coefficients(path)
        own: pd.DataFrame = table[table["method"] == self.finished.results.merged]
        return own

    def card(self, backbone: BackboneSettings, library: str, usage: str) -> str:
        """The model card.

        Args:
            backbone: as ``received_backbone`` gives it.
            library: that loads the model.
            usage: Python code that loads the model.

        Raises:
            ReceivedError: the record lacks something that every merge run has.
        """
        try:
            return model_card(
                self.finished.results,
                self.finished.manifest["config"],
                self.coefficients(),
                asdict(preprocess_of(backbone)),
                manifest_sha256=file_sha256(self.finished.path / MANIFEST),
                library=library,
                usage=usage,
            )
        except (KeyError, TypeError) as error:
            where = printable(str(self.finished.path))
            raise ReceivedError(f"{where}: its record lacks {printable(str(error))}") from error


def export(run: Run) -> None:
    """Write ``TARGET/open_clip`` or ``TARGET/timm``, and ``TARGET/hugging_face`` for CLIP."""
    job = run.config.job
    if job.run is None or job.target is None:
        raise UserError("job.run and job.target: a run directory and a folder are needed")
    merged = MergedRun.read(job.run)
    state = read_weights(merged.weights)
    settings = received_backbone(merged.finished, run.config.backbone)
    with closed_hub():  # open_clip would ask it for the text towers of some architectures
        backbone = create_backbone(settings)
    check_same_tensors(backbone.state_dict(), state, expected="backbone", found=str(merged.weights))
    _write_native(job.target / settings.library, merged, settings, state)
    _write_hugging_face(job.target / "hugging_face", merged, settings, backbone, state)


def _write_native(
    folder: Path, merged: MergedRun, settings: BackboneSettings, state: Mapping[str, Tensor]
) -> None:
    """The tensors with the names of the library the backbone comes from."""
    create = {
        "timm": f"timm.create_model({settings.name!r}, num_classes=0, **{settings.arguments})",
        "open_clip": f"open_clip.create_model({settings.name!r}, **{settings.arguments}).visual",
    }[settings.library]
    usage = (
        f"import {settings.library}\nfrom safetensors.torch import load_file\n\n"
        f'backbone = {create}\nbackbone.load_state_dict(load_file("{WEIGHTS}"))'
    )
    with new_path(folder / WEIGHTS) as partial:
        write_weights(partial, state)
    with new_path(folder / CARD) as partial:
        write_text(partial, merged.card(settings, settings.library, usage))
    log.info("written: %s", folder)


def _write_hugging_face(
    folder: Path,
    merged: MergedRun,
    settings: BackboneSettings,
    backbone: nn.Module,
    state: Mapping[str, Tensor],
) -> None:
    """A folder for ``CLIPVisionModelWithProjection.from_pretrained``, if the backbone is CLIP's."""
    try:
        hugging_face_config = vision_config(backbone)
        tensors = to_hugging_face(state)
    except UserError as reason:
        log.info("left out: %s (%s)", folder, reason)
        return
    usage = (
        "from transformers import CLIPVisionModelWithProjection\n\n"
        'backbone = CLIPVisionModelWithProjection.from_pretrained("FOLDER")\n'
        "features = backbone(images).image_embeds"
    )
    with new_path(folder / HF_CONFIG) as partial:
        write_json(partial, hugging_face_config)
    with new_path(folder / WEIGHTS) as partial:
        # transformers 4 reads no file without this entry.
        write_weights(partial, tensors, metadata={"format": "pt"})
    with new_path(folder / CARD) as partial:
        write_text(partial, merged.card(settings, "transformers", usage))
    log.info("written: %s", folder)
