"""The Python of the pages runs as it stands there, from the top of a page to its end."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture
def names() -> dict[str, Any]:
    """What a reader has: a backbone, two experts of it with their heads, and images."""
    torch.manual_seed(0)
    backbone = torch.nn.Linear(4, 3)
    pretrained = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    experts = {
        task: {name: tensor + torch.randn_like(tensor) for name, tensor in pretrained.items()}
        for task in ("mnist", "svhn")
    }
    return {
        "backbone": backbone,
        "pretrained": pretrained,
        "experts": experts,
        "finetuned_1": experts["mnist"],
        "finetuned_2": experts["svhn"],
        "heads": {task: torch.nn.Linear(3, 10) for task in experts},
        "images": torch.randn(8, 4),
    }


# tests/learning/test_library_page.py runs README.md and docs/library.md, which need more.
@pytest.mark.parametrize("page", ["docs/method.md", "docs/reference/api/methods.md"])
def test_the_code_of_a_page_runs(page: str, names: dict[str, Any]) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    assert blocks
    for block in blocks:
        exec(block, names)
    if "logits" in names:
        assert names["logits"].shape == (8, 10)
        assert names["logits"].requires_grad
    if "merged" in names:
        assert names["merged"].keys() == names["pretrained"].keys()
