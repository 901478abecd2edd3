"""Agreement with the teachers, and the choice it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.merging import TaskVectorBank
from statsmerging.scoring.scores import Candidate, TeacherAgreement, class_scores
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import Network
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
    network = Network(backbone, Preprocess(8, HALF, HALF), torch.device("cpu"))
    return Zoo(network, Weights(pretrained), made)


@pytest.fixture
def images() -> dict[str, ImageSplit]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (64, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return {"mnist": ImageSplit(pixels, UNKNOWN, torch.zeros(64, 16, dtype=torch.uint8), "m")}


@pytest.fixture
def agreement(zoo: Zoo, images: dict[str, ImageSplit], tmp_path: Path) -> TeacherAgreement:
    state = zoo.experts["mnist"].state
    scores = class_scores(zoo, state, "mnist", images["mnist"], None, description="teacher")
    return TeacherAgreement(images, {"mnist": scores}, Cache(tmp_path))


def test_a_teacher_agrees_with_itself_and_a_blind_model_with_one_class(
    agreement: TeacherAgreement, zoo: Zoo
) -> None:
    teacher = Candidate("teacher", zoo, {"mnist": zoo.experts["mnist"].state})
    assert agreement.of(teacher) == 1.0
    blind = {name: torch.zeros_like(value) for name, value in zoo.pretrained.items()}
    first_class = (agreement.labels["mnist"] == 0).float().mean().item()
    found = agreement.of(Candidate.of_state("blind", zoo, blind, keep=False))
    assert found == pytest.approx(first_class)


def test_less_of_the_expert_agrees_less(agreement: TeacherAgreement, zoo: Zoo) -> None:
    bank = TaskVectorBank.from_state_dicts(zoo.pretrained, {"mnist": zoo.experts["mnist"].state})
    far, near = (
        agreement.of(Candidate.of_state("", zoo, bank.merge(torch.tensor([scale]))))
        for scale in (-3.0, 1.0)
    )
    assert far < near == 1.0


def test_cached_scores_are_those_of_the_architecture(
    images: dict[str, ImageSplit], tmp_path: Path
) -> None:
    """The same weights under another activation are another model."""
    weight = torch.randn(5, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
    state = {"1.weight": weight, "1.bias": torch.zeros(5)}
    head = Head(torch.eye(5)[:4], torch.zeros(4))
    scores = []
    for activation in (nn.ReLU(), nn.Tanh()):
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5), activation)
        network = Network(backbone, Preprocess(8, HALF, HALF), torch.device("cpu"))
        zoo = Zoo(network, Weights(state), {"mnist": Expert(Weights(state), head)})
        split = images["mnist"]
        cache = Cache(tmp_path)
        scores.append(class_scores(zoo, Weights(state), "mnist", split, cache, description=""))
    assert scores[0].max() > 1 >= scores[1].max()
