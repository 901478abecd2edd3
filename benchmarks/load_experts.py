"""Peak memory of loading experts into a task-vector bank, at full size with random weights.

    python -m benchmarks.load_experts --model ViT-B-32-quickgelu --experts 8 --precision float32

The files are written to a temporary folder first (--folder keeps them). Memory is the resident
memory of a process of its own, above what it has after its imports.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.measuring import MIB, in_a_process, peak
from benchmarks.random_tower import random_tower
from statsmerging.merging import TaskVectorBank
from statsmerging.zoo.weights import read_weights


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # Both in processes of their own: a child begins with the peak of its parent.
        files = in_a_process(write_files, Path(folder), options.model, options.experts)
        measured = in_a_process(load, files, options.precision)
    print(json.dumps({"model": options.model, "experts": options.experts, **measured}, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="a model of open_clip")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--folder", type=Path, help="where the files are written")
    return parser.parse_args()


def write_files(folder: Path, model: str, experts: int) -> list[Path]:
    """θ₀ and random experts near it, as safetensors files of the image tower."""
    start = random_tower(model)
    files = []
    for number in range(experts + 1):
        path = folder / f"{number}.safetensors"
        noise = 0.0 if number == 0 else 1e-3
        save_file(
            {name: value + noise * torch.randn_like(value) for name, value in start.items()}, path
        )
        files.append(path)
    return files


def load(files: list[Path], precision: str) -> dict[str, Any]:
    """Build the bank from the files and tell the peak of this process."""
    before = peak()
    started = time.perf_counter()
    pretrained = {name: value.clone() for name, value in read_weights(files[0]).items()}
    experts = {str(path.stem): read_weights(path) for path in files[1:]}
    bank = TaskVectorBank.from_state_dicts(pretrained, experts, dtype=getattr(torch, precision))
    seconds = time.perf_counter() - started
    model = sum(value.nbytes for value in pretrained.values())
    vectors = sum(rows.nbytes for rows in bank.vectors.values())
    above = peak() - before
    return {
        "precision": precision,
        "seconds": round(seconds, 1),
        "model_mib": round(model / MIB),
        "task_vectors_mib": round(vectors / MIB),
        "peak_mib": round(above / MIB),
        "models_beyond_task_vectors": round((above - vectors) / model, 2),
    }


if __name__ == "__main__":
    main()
