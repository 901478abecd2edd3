"""Experts of another architecture as a user brings them: made here, from files, into the merge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from statsmerging.app.plugins import load_plugins
from statsmerging.data.images import ImageSplit, SuiteImages
from statsmerging.errors import UserError
from statsmerging.store.files import read_json
from tests.conftest import ROOT, JobRunner, run_in_process, write_suite

#: A network of another family than the small ViT that the tests merge.
SMALL_CNN: dict[str, Any] = {
    "layers": [1, 1, 1, 1],
    "channels": [4, 8, 8, 16],
    "stem_width": 4,
    "output_stride": 8,
}
CNN_ARGUMENTS = "{layers:[1,1,1,1],channels:[4,8,8,16],stem_width:4,output_stride:8}"


@pytest.fixture(scope="session")
def cnn_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised small CNN with a classifier of two classes, as timm saves it."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("cnn") / "small_cnn.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=2, **SMALL_CNN).state_dict(), path)
    return path


@pytest.fixture
def cnn_for_parity(cnn_weights: Path) -> list[str]:
    """The expert of parity is a small CNN; it is distilled in a few steps."""
    return [
        "+backbone@heterogeneous.experts.parity.backbone=micro_cnn",
        f"heterogeneous.experts.parity.backbone.weights={cnn_weights}",
        f"heterogeneous.experts.parity.backbone.arguments={CNN_ARGUMENTS}",
        "heterogeneous.experts.parity.backbone.image_size=24",
        "heterogeneous.teachers.finetuning.steps=20",
        "heterogeneous.teachers.finetuning.batch_size=16",
        "heterogeneous.distillation.steps=4",
        "heterogeneous.distillation.steps_per_epoch=2",
        "heterogeneous.distillation.batch_size=16",
    ]


def test_a_distilled_student_takes_part_like_any_expert(
    run_job: JobRunner, cnn_for_parity: list[str], tmp_path: Path
) -> None:
    results = run_job(*cnn_for_parity)
    rows = results["methods"]
    teacher, student = rows["before_distillation"]["accuracy"], rows["individual"]["accuracy"]
    assert results["distilled"] == {
        "parity": {
            "architecture": "micro_cnn",
            "teacher": teacher["parity"],
            "student": student["parity"],
            "images": 48,
            "unlabeled_images": 48 - 10,  # without those held out
        }
    }
    assert teacher["size"] == student["size"]
    assert rows["individual"]["normalised_average"] == pytest.approx(1.0)
    assert 0 <= rows["stats_merging"]["average"] <= 1
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert {"parity/backbone", "parity/teacher/backbone"} <= set(manifest["weights"])
    assert "parity/teacher/backbone.weights" in manifest["files"]
    assert set(manifest["preprocessing"]) == {"backbone", "parity/teacher"}


def test_the_student_may_label_instead_of_its_teacher(
    run_job: JobRunner, cnn_for_parity: list[str], tmp_path: Path
) -> None:
    """Only what is learned from labels differs, and what is said of the labels."""
    taught = run_job(*cnn_for_parity, directory=tmp_path / "taught")
    alone = run_job(
        *cnn_for_parity, "heterogeneous.labels_from=student", directory=tmp_path / "alone"
    )
    assert taught["distilled"] == alone["distilled"]
    assert taught["teachers"]["size"] == alone["teachers"]["size"]
    assert taught["teachers"]["parity"] != alone["teachers"]["parity"]


def test_wrong_labels_of_the_unlabeled_images_change_nothing(
    run_job: JobRunner,
    cnn_for_parity: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = run_job("job=distill", *cnn_for_parity, directory=tmp_path / "honest")
    split = SuiteImages.split

    def mislabelled(self: SuiteImages, task: Any, name: Any) -> ImageSplit:
        found = split(self, task, name)
        if name != "validation":
            return found
        return ImageSplit(found.images, found.labels * 0 - 1, found.digests, found.key + "-")

    monkeypatch.setattr(SuiteImages, "split", mislabelled)
    again = run_job("job=distill", *cnn_for_parity, directory=tmp_path / "again")
    assert again["distilled"] == honest["distilled"]
    first, second = (tmp_path / name / "experts/parity.safetensors" for name in ("honest", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_students_are_written_as_experts_of_a_local_zoo(
    run_job: JobRunner, small_run: list[str], cnn_for_parity: list[str], tmp_path: Path
) -> None:
    made = run_job("job=distill", *cnn_for_parity, directory=tmp_path / "zoo")
    merged = run_job(*cnn_for_parity, "method=tsv_m", directory=tmp_path / "merged")
    from_files = [item for item in small_run if not item.startswith("zoo.")]
    local = [
        *from_files,
        "zoo=local",
        f"zoo.root={tmp_path / 'zoo' / 'experts'}",
        f"backbone.weights={tmp_path / 'zoo' / 'pretrained.safetensors'}",
        "method=tsv_m",
    ]
    read = run_in_process(local, tmp_path / "local")["methods"]
    assert read["individual"] == made["methods"]["individual"]
    assert read["tsv_m"]["accuracy"] == merged["methods"]["tsv_m"]["accuracy"]

    # Beside experts from files, too: this task needs none of its own then, its head is a probe.
    (tmp_path / "zoo" / "experts" / "parity.safetensors").unlink()
    beside = run_in_process([*local, *cnn_for_parity], tmp_path / "beside")
    assert beside["methods"] == merged["methods"]


def test_a_vit_is_distilled_into_a_network_with_batch_normalisation(
    small_run: list[str], small_weights: Path, cnn_weights: Path, tmp_path: Path
) -> None:
    vit = "{img_size:32,patch_size:8,embed_dim:24,depth:1,num_heads:2}"
    run_in_process(
        [
            *(item for item in small_run if not item.startswith("backbone.")),
            "backbone=micro_cnn",
            f"backbone.arguments={CNN_ARGUMENTS}",
            f"backbone.weights={cnn_weights}",
            "+backbone@heterogeneous.experts.size.backbone=micro_vit",
            f"heterogeneous.experts.size.backbone.weights={small_weights}",
            f"heterogeneous.experts.size.backbone.arguments={vit}",
            "heterogeneous.teachers.finetuning.steps=5",
            "heterogeneous.distillation.steps=4",
            "heterogeneous.distillation.steps_per_epoch=4",
        ],
        tmp_path / "run",
    )
    start, merged = load_file(cnn_weights), load_file(tmp_path / "run" / "merged.safetensors")
    running = {name for name in merged if "running" in name or "num_batches" in name}
    assert running
    assert all(torch.equal(merged[name], start[name]) for name in running)
    assert not torch.equal(merged["layer4.0.conv1.weight"], start["layer4.0.conv1.weight"])


def test_a_teacher_from_a_file_keeps_its_own_classifier(
    run_job: JobRunner, cnn_for_parity: list[str], cnn_weights: Path, suite_root: Path
) -> None:
    """The accuracy of the whole timm model, on images resized by PIL alone."""
    import datasets
    import numpy as np

    model = timm.create_model("resnet10t", num_classes=2, **SMALL_CNN).eval()
    model.load_state_dict(load_file(cnn_weights))
    file = str(suite_root / "parity" / "test-*.parquet")
    test = datasets.load_dataset("parquet", data_files=file)["train"]
    shown = [image.convert("RGB").resize((24, 24), 3) for image in test["image"]]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in shown]))
    with torch.inference_mode():
        scores = model(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    right = (scores.argmax(1) == torch.tensor(test["label"][:])).float().mean().item()
    found = run_job(
        "job=distill", *cnn_for_parity, f"+heterogeneous.experts.parity.file={cnn_weights}"
    )
    assert found["distilled"]["parity"]["teacher"] == pytest.approx(right)


def test_a_student_that_is_far_too_small_is_named(
    run_job: JobRunner, cnn_for_parity: list[str], tmp_path: Path
) -> None:
    """A student that sees one patch through two channels, of a teacher that learned its task."""
    torch.manual_seed(0)
    tiny: dict[str, Any] = {"img_size": 32, "patch_size": 32, "embed_dim": 2, "num_heads": 1}
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, **tiny)
    save_file(vit.state_dict(), tmp_path / "tiny.safetensors")
    results = run_job(
        "job=distill",
        f"suite.root={write_suite(tmp_path / 'suite', images_per_split=200)}",
        f"backbone.weights={tmp_path / 'tiny.safetensors'}",
        *(f"backbone.arguments.{key}={value}" for key, value in tiny.items()),
        *cnn_for_parity,
        "heterogeneous.teachers.finetuning.steps=150",
        "heterogeneous.teachers.finetuning.learning_rate=1e-2",
        "heterogeneous.distillation.steps=100",
    )
    (line,) = results["warnings"]
    assert "the distilled student of parity is right on" in line
    assert "its teacher (micro_cnn)" in line


def test_the_documented_plugin_brings_an_architecture_that_timm_has_not(
    run_job: JobRunner, cnn_for_parity: list[str], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "heterogeneous.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    plugin, weights = tmp_path / "resnet_cifar.py", tmp_path / "weights.safetensors"
    plugin.write_text(code)
    load_plugins([plugin])
    save_file(timm.create_model("resnet20_cifar", num_classes=2).state_dict(), weights)
    results = run_job(
        "job=distill",
        f"plugins=[{plugin}]",
        "+backbone@heterogeneous.experts.size.backbone=timm",
        "heterogeneous.experts.size.backbone.name=resnet20_cifar",
        "heterogeneous.experts.size.backbone.image_size=32",
        f"+heterogeneous.experts.size.file={weights}",
        *cnn_for_parity,
    )
    assert list(results["distilled"]) == ["parity", "size"]
    assert results["distilled"]["size"]["architecture"] == "resnet20_cifar"


MISTAKES = {
    "an unknown task": (
        ["+backbone@heterogeneous.experts.mnist.backbone=micro_cnn"],
        "heterogeneous.experts: mnist is no seen task of the suite; it has parity, size",
    ),
    "test images": (
        ["heterogeneous.distillation.images=test"],
        "heterogeneous.distillation.images=test: input should be 'validation' or 'train'",
    ),
    "an unknown labeller": (
        ["heterogeneous.labels_from=nobody"],
        "heterogeneous.labels_from=nobody: input should be 'teacher' or 'student'",
    ),
    "a remainder": (
        ["heterogeneous.distillation.steps=7"],
        "heterogeneous.distillation: steps=7 must be a multiple of steps_per_epoch=50",
    ),
    "no architecture": (
        ["+heterogeneous.experts.parity.file=null"],
        "heterogeneous.experts.parity.backbone: field required",
    ),
    "nothing to distill": (
        ["job=distill"],
        "heterogeneous.experts: name the tasks whose experts have another architecture",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_choices(run_job: JobRunner, mistake: str) -> None:
    overrides, message = MISTAKES[mistake]
    with pytest.raises(UserError) as refused:
        run_job(*overrides)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_expert_of_the_task_is_refused(
    run_job: JobRunner, cnn_for_parity: list[str], small_weights: Path, tmp_path: Path
) -> None:
    def given(file: Path) -> str:
        return f"+heterogeneous.experts.parity.file={file}"

    wide, headless = tmp_path / "wide.safetensors", tmp_path / "headless.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=5, **SMALL_CNN).state_dict(), wide)
    save_file(timm.create_model("resnet10t", num_classes=0, **SMALL_CNN).state_dict(), headless)
    for file, message in (
        (wide, "the head of parity has 5 classes, parity has 2"),
        (headless, "or a classifier under one of the names head"),
        (small_weights, "does not match in"),
    ):
        with pytest.raises(UserError, match=message):
            run_job(*cnn_for_parity, given(file))
