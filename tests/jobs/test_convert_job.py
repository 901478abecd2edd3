"""``job=convert`` as a user meets it: a file, a card, one line, and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from statsmerging.errors import UserError
from statsmerging.store.hashing import file_sha256
from statsmerging.zoo.heads import read_head
from tests.app.test_command_line import command
from tests.conftest import run_in_process
from tests.zoo.formats.genuine import FIXTURES

ENCODER = FIXTURES / "task_vectors_encoder.pt"
VISION = FIXTURES / "transformers_4" / "vision" / "model.safetensors"
CLIP = FIXTURES / "transformers_5" / "clip" / "model.safetensors"


def convert(source: Path, target: Path, *more: str) -> dict[str, Any]:
    """The card of a conversion in this process."""
    run_in_process(
        ["job=convert", f"job.source={source}", f"job.target={target}", *more],
        target.parent / "run",
    )
    card: dict[str, Any] = json.loads(target.with_suffix(".json").read_text())
    return card


def test_card_says_what_the_file_was_made_from(tmp_path: Path) -> None:
    card = convert(ENCODER, tmp_path / "tower.safetensors")
    tensors = load_file(tmp_path / "tower.safetensors")
    assert card.pop("dropped") == [
        "model.positional_embedding",
        "model.text_projection",
        "model.logit_scale",
        "model.ln_final.weight",
        "model.ln_final.bias",
        "model.token_embedding.weight",
    ]
    assert card == {
        "family": "task_vectors image encoder",
        "source": [
            {
                "name": "task_vectors_encoder.pt",
                "sha256": file_sha256(ENCODER),
                "bytes": ENCODER.stat().st_size,
            }
        ],
        "base": None,
        "tensors": len(tensors),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
    }


def test_head_keeps_its_flag(tmp_path: Path) -> None:
    card = convert(FIXTURES / "task_vectors_head.pt", tmp_path / "head.safetensors")
    assert card["normalize"] is True
    # What was converted acts as the module did: it normalises its features.
    converted, pickled = (
        read_head(path)
        for path in (tmp_path / "head.safetensors", FIXTURES / "task_vectors_head.pt")
    )
    features = torch.randn(5, converted.weight.shape[1])
    assert converted.normalises
    torch.testing.assert_close(converted(features), pickled(features))


def test_base_of_a_vision_model_and_of_an_adapter(tmp_path: Path) -> None:
    card = convert(VISION, tmp_path / "vision.safetensors", f"job.base={CLIP}")
    assert card["base"]["sha256"] == file_sha256(CLIP)
    adapter = FIXTURES / "adapters" / "patterns"
    card = convert(adapter, tmp_path / "adapted.safetensors", f"job.base={CLIP}")
    names = ["adapter_config.json", "adapter_model.safetensors"]
    assert [file["name"] for file in card["source"]] == names
    assert card["family"] == "PEFT LoRA adapter"


def test_twice_gives_the_same_bytes_and_another_content_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "tower.safetensors"
    files = (target, target.with_suffix(".json"))
    convert(ENCODER, target)
    first = [file.read_bytes() for file in files]
    convert(ENCODER, target)
    assert [file.read_bytes() for file in files] == first
    with pytest.raises(UserError, match=r"tower\.safetensors already holds something else"):
        convert(CLIP, target)
    # The same tensors from a file of another name: the card would be another one.
    renamed = Path(shutil.copy(ENCODER, tmp_path / "renamed.pt"))
    with pytest.raises(UserError, match=r"tower\.json already holds something else"):
        convert(renamed, target)
    assert [file.read_bytes() for file in files] == first


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["job.source=/nowhere.pt", "job.target=x.safetensors"], "job.source=/nowhere.pt: no such"),
        ([f"job.source={ENCODER}", "job.target=x.pt"], "job.target=x.pt: the name must end with"),
        ([f"job.source={VISION}", "job.target=x.safetensors"], "has no projection: give a base"),
        ([f"job.source={VISION}"], "job.target: a value is needed"),
    ],
)
def test_mistakes_end_in_one_line(overrides: list[str], expected: str, tmp_path: Path) -> None:
    done = command("job=convert", *overrides, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_command_says_what_was_written(tmp_path: Path) -> None:
    target = tmp_path / "tower.safetensors"
    arguments = [f"job.source={CLIP}", f"job.target={target}", f"hydra.run.dir={tmp_path}/run"]
    done = command("job=convert", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"written: {target} (Hugging Face CLIP, 32 tensors, 5568 parameters, 22 tensors dropped)"
    )


def test_conversion_imports_no_model_library() -> None:
    """A converter that waits for Lightning, timm or open_clip is no quick one."""
    script = (
        "import sys; from statsmerging.jobs import convert; "
        "sys.exit(str({'lightning', 'timm', 'open_clip', 'datasets', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "set()"


def test_pickles_that_are_hostile_end_in_one_line(tmp_path: Path) -> None:
    source = tmp_path / "model.pt"
    torch.save(torch.nn.Sequential(Hostile()), source)
    with pytest.raises(UserError, match=r"names 'tests\.jobs\.test_convert_job\.Hostile'"):
        convert(source, tmp_path / "tower.safetensors")
    assert not (tmp_path / "tower.safetensors").exists()


class Hostile(torch.nn.Module):
    """A class of nobody's family."""
