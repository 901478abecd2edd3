"""Twin-Merging against weights that are mixed by hand, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import task_arithmetic
from statsmerging.merging.methods.twin_merging import TwinMerging, TwinModel, task_router
from tests.merging.methods.reference import Array, as_matrix, task_vectors
from tests.small_models import TinyBackbone, random_experts, small_tower, small_vit

TASKS = ("mnist", "svhn", "cars")


@pytest.fixture(params=[small_vit, small_tower])
def vit(request: pytest.FixtureRequest) -> nn.Module:
    """A vision transformer of either library."""
    torch.manual_seed(0)
    make: Callable[[], nn.Module] = request.param
    return make().eval().requires_grad_(False)


def bank_of(backbone: nn.Module, tasks: tuple[str, ...] = TASKS) -> TaskVectorBank:
    start = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    return TaskVectorBank.from_state_dicts(start, random_experts(start, tasks))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def clusters(task: str, _: Mapping[str, Tensor]) -> Tensor:
    """Features of a task, around a centre of its own."""
    place = TASKS.index(task)
    generator = torch.Generator().manual_seed(place)
    return 4 * torch.eye(24)[place] + torch.randn(30, 24, generator=generator)


def exclusive_reference(bank: TaskVectorBank, scale: float, share: float) -> dict[str, Array]:
    """Layer → K × shape."""
    found = {}
    for name, vectors in task_vectors(bank).items():
        parts = vectors - scale * vectors.sum(axis=0)
        if parts.ndim > 2 and min(as_matrix(parts[0]).shape) > 1:
            for part in parts:
                left, values, right = np.linalg.svd(as_matrix(part), full_matrices=False)
                rank = max(1, int(share * len(values)))
                kept = left[:, :rank] * values[:rank] @ right[:rank]
                part[...] = kept.reshape(part.shape)
        found[name] = parts
    return found


def test_exclusive_parts(vit: nn.Module) -> None:
    bank = bank_of(vit)
    found = TwinMerging(scale=0.4, share=0.3).exclusive(bank)
    shared, expected = task_arithmetic(bank, scale=0.4), exclusive_reference(bank, 0.4, 0.3)
    for name in bank.layers:
        assert torch.equal(found.pretrained[name], shared[name])
        parts = found.vectors[name].view(expected[name].shape)
        np.testing.assert_allclose(parts.numpy(), expected[name], atol=1e-5)


@torch.no_grad()
def test_every_image_has_a_mixture_of_its_own(vit: nn.Module, images: Tensor) -> None:
    bank = bank_of(vit)
    shared = task_arithmetic(bank, scale=0.3)
    features = functional_call(vit, shared, (images,))
    router = task_router(features.shape[1], len(TASKS)).eval()
    exclusive = TwinMerging().exclusive(bank)
    found = TwinModel(vit, exclusive, router)(images)
    shares = router(features).double().softmax(dim=1).numpy()
    assert shares.std(axis=0).max() > 1e-3
    parts = exclusive_reference(bank, 0.3, 0.1)
    for image, own, feature in zip(images, shares, found, strict=True):
        weights = {
            name: shared[name] + torch.from_numpy(np.tensordot(own, parts[name], 1)).float()
            for name in bank.layers
        }
        expected = functional_call(vit, {**bank.kept, **weights}, (image[None],))[0]
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_expert_comes_back_if_all_of_it_is_kept(vit: nn.Module, images: Tensor) -> None:
    bank = bank_of(vit, TASKS[:1])
    model = TwinMerging(share=1.0, epochs=1).fit(vit, bank, clusters_of_features(vit))
    expected = functional_call(vit, bank.expert("mnist"), (images,))
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-3)


def clusters_of_features(vit: nn.Module) -> Callable[[str, Mapping[str, Tensor]], Tensor]:
    """Features of random images under the weights that are asked for."""

    def features(task: str, weights: Mapping[str, Tensor]) -> Tensor:
        seen = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(len(task)))
        found: Tensor = functional_call(vit, dict(weights), (seen,))
        return found

    return features


def test_the_router_learns_whose_images_they_are() -> None:
    vit = small_vit()
    bank = bank_of(vit)
    before = torch.get_rng_state()
    method = TwinMerging(epochs=40, batch_size=30, learning_rate=5e-3)
    router = method.fit(vit, bank, clusters).router
    assert torch.equal(torch.get_rng_state(), before)
    again, other = method.fit(vit, bank, clusters), TwinMerging(epochs=1).fit(vit, bank, clusters)
    inputs = torch.cat([clusters(task, {}) for task in TASKS])
    assert torch.equal(router(inputs), again.router(inputs))
    assert not torch.equal(router(inputs), other.router(inputs))
    told = router(inputs).argmax(dim=1)
    assert (told == torch.arange(3).repeat_interleave(30)).float().mean() > 0.95
    assert not any(weight.requires_grad for weight in again.parameters())


def test_tasks_without_a_router_have_equal_shares_whatever_their_order() -> None:
    """With a router that knows nothing, the order of the experts does not matter."""
    vit = small_vit().eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    start = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    experts = random_experts(start, TASKS)
    found = []
    for tasks in (TASKS, TASKS[::-1]):
        bank = TaskVectorBank.from_state_dicts(start, {task: experts[task] for task in tasks})
        router = task_router(24, 3).eval()
        nn.init.zeros_(router[-1].weight)  # type: ignore[index]
        nn.init.zeros_(router[-1].bias)  # type: ignore[index]
        with torch.no_grad():
            found.append(TwinModel(vit, TwinMerging().exclusive(bank), router)(images))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_a_single_image_is_refused() -> None:
    backbone = TinyBackbone()
    with pytest.raises(MergingError, match="twin_merging: its router needs at least two images"):
        TwinMerging().fit(backbone, bank_of(backbone, ("mnist",)), lambda *_: torch.zeros(1, 5))
