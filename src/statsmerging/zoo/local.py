"""A zoo from files on disk: one safetensors file per task."""

from __future__ import annotations

from pathlib import Path

from statsmerging.data.suites import Task
from statsmerging.merging.task_vectors import check_same_tensors
from statsmerging.records.errors import UserError
from statsmerging.zoo.backbones import create_backbone, preprocess_of
from statsmerging.zoo.experts import Expert, Zoo, copy_state, read_expert
from statsmerging.zoo.inference import inference_device
from statsmerging.zoo.settings import BackboneSettings


def local_zoo(
    settings: BackboneSettings, root: Path, tasks: tuple[Task, ...], *, accelerator: str
) -> Zoo:
    """Experts from ``ROOT/TASK.safetensors`` with ``backbone.*``, ``head.weight``, ``head.bias``.

    Raises:
        UserError: a missing file, one without a head, or a head with another number of classes.
        MergingError: tensors that do not match the backbone (names and both shapes), or NaN.
    """
    if not root.is_dir():
        raise UserError(f"zoo.root={root}: no such folder")
    backbone = create_backbone(settings)
    pretrained = copy_state(backbone)

    def read(task: Task) -> Expert:
        path = root / f"{task.name}.safetensors"
        expert = read_expert(path)
        check_same_tensors(pretrained, expert.state, expected="backbone", found=str(path))
        classes = expert.head.weight.shape[0]
        if classes != len(task.classes):
            raise UserError(
                f"{path}: its head has {classes} classes, {task.name} has {len(task.classes)}"
            )
        return expert

    experts = {task.name: read(task) for task in tasks}
    device = inference_device(accelerator)
    return Zoo(backbone, preprocess_of(settings), pretrained, experts, device)
