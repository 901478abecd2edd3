"""Agreement with the teachers, and the choice it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.preprocess import Preprocess
from statsmerging.evaluation.agreement import TeacherAgreement, most_agreeing
from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import task_arithmetic
from statsmerging.records.cache import Cache
from statsmerging.zoo.class_scores import class_scores
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.weights import Weights

HALF = (0.5, 0.5, 0.5)
UNKNOWN = torch.full((64,), -1)


@pytest.fixture
def zoo(
    backbone: nn.Module, pretrained: dict[str, Tensor], experts: dict[str, dict[str, Tensor]]
) -> Zoo:
    generator = torch.Generator().manual_seed(2)
    made = {
        task: Expert(Weights(state), Head(torch.randn(4, 5, generator=generator), torch.zeros(4)))
        for task, state in experts.items()
    }
    return Zoo(backbone, Preprocess(8, HALF, HALF), Weights(pretrained), made, torch.device("cpu"))


@pytest.fixture
def images() -> dict[str, ImageSplit]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (64, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return {"mnist": ImageSplit(pixels, UNKNOWN, torch.zeros(64, 16, dtype=torch.uint8), "m")}


@pytest.fixture
def agreement(zoo: Zoo, images: dict[str, ImageSplit], tmp_path: Path) -> TeacherAgreement:
    state = zoo.experts["mnist"].state
    scores = class_scores(zoo, state, "mnist", images["mnist"], None, description="teacher")
    return TeacherAgreement(zoo, images, {"mnist": scores}, Cache(tmp_path))


def test_a_teacher_agrees_with_itself_and_a_blind_model_with_one_class(
    agreement: TeacherAgreement, zoo: Zoo
) -> None:
    assert agreement.of(zoo.experts["mnist"].state, "teacher") == 1.0
    blind = {name: torch.zeros_like(value) for name, value in zoo.pretrained.items()}
    first_class = (agreement.labels["mnist"] == 0).float().mean().item()
    assert agreement.of(blind, "blind", keep=False) == pytest.approx(first_class)


def test_the_scale_that_gives_the_teacher_is_chosen(
    agreement: TeacherAgreement, pretrained: dict[str, Tensor], zoo: Zoo
) -> None:
    bank = TaskVectorBank.from_state_dicts(pretrained, {"mnist": zoo.experts["mnist"].state})
    scores = {scale: agreement.of(task_arithmetic(bank, scale), "") for scale in (-3.0, 1.0)}
    assert scores[-3.0] < scores[1.0] == 1.0
    assert most_agreeing(lambda scale: task_arithmetic(bank, scale), [-3, 1], agreement) == 1


def test_the_first_of_equals_wins(agreement: TeacherAgreement, zoo: Zoo) -> None:
    assert most_agreeing(lambda scale: dict(zoo.pretrained), [0.5, 0.1, 0.9], agreement) == 0.5
