"""The blocks of README.md and docs/library.md run as they stand, one after the other."""

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
    names = run_page("docs/library.md", tmp_path, monkeypatch)
    assert names["scores"].shape == (40, 4)
    assert names["logits"].requires_grad
    assert names["singular_wise"].coefficients.dim() == names["task_wise"].coefficients.dim() == 1
    assert names["own"].learner.weight.abs().sum() > 0
    assert names["from_loaders"].held_out == {"mnist": 8, "svhn": 8}
    assert set(names["states"]["wudi"]) == set(names["pretrained"])


def test_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("README.md", tmp_path, monkeypatch)
    assert names["scores"].shape == (40, 4)
    assert names["merged"].state.keys() == names["tsv_m"].keys() == names["pretrained"].keys()


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names after a page's blocks, run with what a reader has: experts, heads and images."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    generator = torch.Generator().manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6))
    pretrained = {name: value.clone() for name, value in backbone.state_dict().items()}
    experts = {
        task: {
            name: value + 0.3 * torch.randn(value.shape, generator=generator)
            for name, value in pretrained.items()
        }
        for task in ("mnist", "svhn")
    }
    for name, state in {"pretrained": pretrained, **experts}.items():
        torch.save(state, folder / f"{name}.pt")
    monkeypatch.chdir(folder)
    monkeypatch.setitem(DEFAULTS, "steps", 5)
    names: dict[str, Any] = {
        "torch": torch,
        "backbone": backbone,
        "pretrained": pretrained,
        "experts": experts,
        "heads": {task: nn.Linear(6, 4) for task in experts},
        "images": {task: torch.rand(40, 3, 2, 2, generator=generator) for task in experts},
    }
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names
