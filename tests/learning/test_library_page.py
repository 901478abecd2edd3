"""The blocks of docs/library.md run as they stand there, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from statsmerging.learning.library.options import DEFAULTS
from tests.conftest import ROOT


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    generator = torch.Generator().manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6))
    start = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.save(start, tmp_path / "pretrained.pt")
    for task in ("mnist", "svhn"):
        tuned = {
            name: value + 0.3 * torch.randn(value.shape, generator=generator)
            for name, value in start.items()
        }
        torch.save(tuned, tmp_path / f"{task}.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DEFAULTS, "steps", 5)
    names: dict[str, Any] = {
        "backbone": backbone,
        "heads": {task: nn.Linear(6, 4) for task in ("mnist", "svhn")},
        "images": {
            task: torch.rand(40, 3, 2, 2, generator=generator) for task in ("mnist", "svhn")
        },
    }
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), names)
    assert names["scores"].shape == (40, 4)
    assert names["logits"].requires_grad
    assert names["singular_wise"].coefficients.dim() == names["task_wise"].coefficients.dim() == 1
    assert names["own"].learner.weight.abs().sum() > 0
    assert names["from_loaders"].held_out == {"mnist": 8, "svhn": 8}
    assert set(names["states"]["wudi"]) == set(start)
