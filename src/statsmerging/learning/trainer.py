"""The Lightning trainer of every training, and checkpoints from which it continues."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import (
    LightningEnvironment,
    find_free_network_port,
)
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from xxhash import xxh3_128

from statsmerging.errors import UserError
from statsmerging.store.files import atomic_path, remove_partials, set_aside
from statsmerging.store.received import received_file

log = logging.getLogger(__name__)

#: Bytes of the checksum, with which a checkpoint ends.
CHECKSUM = 16


class CheckedCheckpoints(CheckpointIO):
    """Lightning's checkpoints, each one file that ends with the checksum of its content.

    A checkpoint is written beside its place and renamed, so it is always whole; the previous
    checkpoint is kept as ``NAME.before.ckpt``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(path) as partial:
            with partial.open("wb") as stream:
                stream.write(content.getbuffer())
                stream.write(xxh3_128(content.getbuffer()).digest())
            if path.exists():
                path.replace(_before(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # ignored: a checkpoint is data, and never runs code
    ) -> dict[str, Any]:
        content = _checked(Path(path))
        checkpoint: dict[str, Any] = torch.load(
            content, map_location=map_location, weights_only=True
        )
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
        with suppress(OSError):  # a folder with other files stays
            # Where several processes learn, Lightning makes a folder for one file and leaves it.
            Path(path).parent.rmdir()


def continue_from(path: Path) -> Path | None:
    """The checkpoint at ``path``, or else the previous one; ``None``: training starts anew.

    A damaged checkpoint is set aside. Training ends at the same numbers from either.
    """
    remove_partials(path)
    damaged = False
    for file in (path, _before(path)):
        if not os.path.lexists(file):
            continue
        if _is_sound(file):
            log.info("continuing from %s", file)
            return file
        log.warning("%s is not what was written there: set aside as %s", file, set_aside(file))
        damaged = True
    if damaged:
        log.warning("no sound checkpoint is left: the training starts anew")
    return None


def forget(path: Path) -> None:
    """Remove the checkpoints of a training whose result was saved."""
    for file in (path, _before(path)):
        if file.exists():
            file.unlink()


def _before(path: Path) -> Path:
    return path.with_name(f"{path.stem}.before{path.suffix}")


def _is_sound(path: Path) -> bool:
    try:
        torch.load(_checked(path), map_location="cpu", weights_only=True)
    except Exception:  # torch raises errors of many kinds for what it cannot read
        return False
    return True


def _checked(path: Path) -> io.BytesIO:
    """The content of a checkpoint, without its checksum.

    Raises:
        UserError: the file is damaged.
    """
    content = received_file(path.parent, path.name).read_bytes()
    saved, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    if xxh3_128(saved).digest() != checksum:
        raise UserError(f"{path} is not what was written there")
    return io.BytesIO(saved)


_HINTS = (
    # The images are memory-mapped: worker processes would only add start-up time.
    ".*does not have many workers.*",
    # Frozen parts stay in evaluation mode on purpose.
    ".*in eval mode at the start of training.*",
    # A run that continues finds its own checkpoint.
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*LeafSpec.*is deprecated.*",
    ".*`srun` command is available.*",
)


class OwnProcesses(LightningEnvironment):
    """Ranks of the processes that this one starts; its own rank is zero.

    Variables such as ``RANK``, ``LOCAL_RANK`` or ``SLURM_PROCID`` may number processes of a
    launcher, e.g. several runs in one ``srun``. Lightning would read them, and only rank zero
    writes learning curves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starter = os.getpid()
        self.set_global_rank(0)

    @property
    def creates_processes_externally(self) -> bool:
        return False

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        if self._main_port == -1:
            self._main_port = find_free_network_port()
        return self._main_port

    def local_rank(self) -> int:
        # Lightning sets LOCAL_RANK in each process that it starts.
        return 0 if os.getpid() == self._starter else super().local_rank()

    def node_rank(self) -> int:
        return 0


class StepBar(Callback):
    """One progress bar over all steps of a training, with the loss and the time left.

    Args:
        description: shown to the left of the bar.
        visible: whether it is shown at all.
    """

    def __init__(self, description: str, visible: bool = True) -> None:
        self.description = description
        self.visible = visible

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        _silence_lightning()  # here as well, because every process comes by

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.progress = self._progress(self.visible and trainer.is_global_zero)
        steps = int(trainer.estimated_stepping_batches)
        if self.progress.disable and trainer.is_global_zero:
            log.info("%s: %d steps", self.description, steps)
        self.progress.start()
        self.bar = self.progress.add_task(
            self.description, total=steps, completed=trainer.global_step, loss=0.0
        )

    @staticmethod
    def _progress(visible: bool) -> Progress:
        console = Console(stderr=True)
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            console=console,
            transient=True,
            disable=not (console.is_terminal and visible),
        )

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        loss = trainer.callback_metrics.get("loss", 0.0)
        self.progress.update(self.bar, completed=trainer.global_step, loss=float(loss))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, _: Any) -> None:
        if hasattr(self, "progress"):  # several processes: the one that started them has no bar
            self.progress.stop()


def create_trainer(
    *,
    accelerator: str,
    epochs: int,
    description: str,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    checkpoint: Path | None = None,
    clip: float | None = None,
    devices: int = 1,
    progress: bool = True,
) -> L.Trainer:
    """A trainer for a fixed number of epochs, each as long as the data's sampler makes it.

    Epochs, not steps, end the training: Lightning continues exactly from the end of an epoch
    only where the limit is a number of epochs.

    Args:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        epochs: when to stop.
        description: shown beside the progress bar.
        checkpoint: where each epoch leaves one; ``continue_from`` finds it again.
        clip: largest norm of the gradient.
        devices: processes; more than one are started for the fit alone. Tensors on the CPU are
            handed to them as shared memory; Lightning gives each its own copy of a module's
            parameters, here of θ₀, but not of the task vectors.
        progress: whether the bar is shown.
    """
    _silence_lightning()
    saving: list[Callback] = []
    if checkpoint is not None:
        folder, name = checkpoint.parent, checkpoint.stem
        saving.append(ModelCheckpoint(folder, filename=name, enable_version_counter=False))
    # No buffer changes, so none is sent around in a step.
    spawned = DDPStrategy(start_method="spawn", forward_sync_buffers=False)
    return L.Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy="auto" if devices == 1 else spawned,
        # Also under SLURM: the launcher requeues a job, and Lightning's own handlers would never
        # receive the signal that SLURM sends.
        plugins=[OwnProcesses(), CheckedCheckpoints()],
        max_epochs=epochs,
        logger=list(loggers),
        callbacks=[StepBar(description, progress), *callbacks, *saving],
        enable_checkpointing=bool(saving),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=clip,
        log_every_n_steps=1,
    )


def _silence_lightning() -> None:
    """Drop hints that do not concern the user."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _HINTS:
        warnings.filterwarnings("ignore", message=message)
