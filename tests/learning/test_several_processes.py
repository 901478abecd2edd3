"""Two processes learn what one learns, and hold the task vectors once between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import ValidationError
from torch import Tensor

from statsmerging.learning.data_module import ShardedSampler, TaskBalancedSampler
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import TrainerSettings
from statsmerging.learning.trainer import create_trainer
from statsmerging.merging import TaskVectorBank
from tests.learning.test_module import make_data, make_module


class Witness(Callback):
    """Writes down, in every process, whether it shares the bank's memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, StatsMerging)
        assert isinstance(module.student.bank, TaskVectorBank)
        vectors = module.student.bank.vectors.values()
        seen = {"processes": trainer.world_size, "shared": [rows.is_shared() for rows in vectors]}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(seen))


def learned(
    bank: TaskVectorBank, accumulate: Literal["joint", "per_task"], devices: int, folder: Path
) -> Tensor:
    module = make_module(bank, accumulate)
    trainer = create_trainer(
        accelerator="cpu",
        epochs=2,
        description="test",
        devices=devices,
        callbacks=[Witness(folder)],
    )
    trainer.fit(module, make_data(bank))
    with torch.no_grad():
        coefficients: Tensor = module.learner()
    return coefficients


@pytest.mark.parametrize("accumulate", ["joint", "per_task"])
def test_two_processes_give_what_one_gives(
    bank: TaskVectorBank, tmp_path: Path, accumulate: Literal["joint", "per_task"]
) -> None:
    start = make_module(bank).learner().detach()
    alone = learned(bank, accumulate, 1, tmp_path)
    together = learned(bank, accumulate, 2, tmp_path)
    assert (alone - start).abs().max() > 1e-3
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)

    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert all(process["processes"] == 2 and all(process["shared"]) for process in seen)


def test_shares_make_up_the_whole_batch() -> None:
    def batches(process: int | None) -> list[list[tuple[int, int]]]:
        whole = TaskBalancedSampler([7, 20, 5], images_per_task=6, batches=3, seed=1)
        whole.set_epoch(2)
        return list(whole if process is None else ShardedSampler(whole, 6, process, 3))

    shares = [batches(process) for process in range(3)]
    for number, batch in enumerate(batches(None)):
        parts = [share[number] for share in shares]
        assert all([task for task, _ in part] == [0, 0, 1, 1, 2, 2] for part in parts)
        assert sorted(address for part in parts for address in part) == sorted(batch)


def test_images_that_cannot_be_shared_equally_are_refused() -> None:
    with pytest.raises(ValidationError, match="images_per_task=3 must be a multiple of devices=2"):
        TrainerSettings(
            steps=4,
            images_per_task=3,
            learning_rate=0.01,
            weight_decay=0.0,
            accumulate="joint",
            steps_per_epoch=2,
            devices=2,
            seed=0,
        )
