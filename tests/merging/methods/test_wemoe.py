"""WEMoE in float64 against models that are merged with the routers' coefficients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging import MergedModel, MergingError, TaskVectorBank
from statsmerging.merging.methods import task_arithmetic
from statsmerging.merging.methods.wemoe import WeightEnsemblingMoE, WEMoE, train_routers
from tests.small_models import TinyBackbone, random_experts, small_tower, small_vit

TASKS = ("mnist", "svhn", "cars")
SCALE = 0.3


@pytest.fixture(params=[small_vit, small_tower])
def vit(request: pytest.FixtureRequest) -> nn.Module:
    """A vision transformer of either library."""
    torch.manual_seed(0)
    make: Callable[[], nn.Module] = request.param
    return make().double().eval().requires_grad_(False)


def bank_of(backbone: nn.Module, dtype: torch.dtype = torch.float64) -> TaskVectorBank:
    start = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    return TaskVectorBank.from_state_dicts(start, random_experts(start, TASKS), dtype=dtype)


@pytest.fixture
def bank(vit: nn.Module) -> TaskVectorBank:
    return bank_of(vit)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(4, 3, 16, 16, generator=generator, dtype=torch.float64)


def randomised(model: WEMoE) -> WEMoE:
    """Routers whose output differs from image to image."""
    generator = torch.Generator().manual_seed(6)
    for router in model.routers.values():
        for weight in router.parameters():
            weight.data.uniform_(-0.5, 0.5, generator=generator)
    return model


def cubes(features: Tensor) -> Tensor:
    """A loss that normalised features do not keep constant."""
    return features.pow(3).sum()


def coefficients(bank: TaskVectorBank, of_mlps: dict[str, Tensor]) -> Tensor:
    """L × K: the given row in an MLP's tensors; elsewhere 0.3, rounded as by task arithmetic."""
    rows = torch.full((len(bank.layers), 3), SCALE).double()
    for row, layer in zip(rows, bank.layers, strict=True):
        for name, values in of_mlps.items():
            if layer.startswith(f"{name}."):
                row.copy_(values)
    return rows


@torch.no_grad()
def test_it_starts_at_task_arithmetic(vit: nn.Module, bank: TaskVectorBank, images: Tensor) -> None:
    model = WeightEnsemblingMoE(scale=0.4).build(vit, bank)
    assert len(model.routers) == 2
    expected = functional_call(vit, task_arithmetic(bank, scale=0.4), (images,))
    torch.testing.assert_close(model(images), expected)


@torch.no_grad()
def test_constant_routers_are_a_merged_model(
    vit: nn.Module, bank: TaskVectorBank, images: Tensor
) -> None:
    model = WEMoE(vit, bank, SCALE, seed=0)
    chosen = {
        name: torch.tensor([0.9, -0.2, 0.1 * i], dtype=torch.float64)
        for i, name in enumerate(model.routers)
    }
    for name, router in model.routers.items():
        router.output.bias.copy_(chosen[name])
    merged = bank.merge(coefficients(bank, chosen))
    torch.testing.assert_close(model(images), functional_call(vit, merged, (images,)))


@torch.no_grad()
def test_every_image_has_a_merged_model_of_its_own(
    vit: nn.Module, bank: TaskVectorBank, images: Tensor
) -> None:
    model = randomised(WEMoE(vit, bank, SCALE, seed=0))
    routed: dict[str, Tensor] = {}
    for name, router in model.routers.items():
        router.register_forward_hook(lambda _, __, r, name=name: routed.update({name: r}))
    features = model(images)
    spread = torch.stack(list(routed.values())).std(dim=1)
    assert (spread > 1e-3).all()
    for i, image in enumerate(images):
        merged = bank.merge(coefficients(bank, {name: r[i] for name, r in routed.items()}))
        torch.testing.assert_close(
            features[i : i + 1], functional_call(vit, merged, (image[None],))
        )


@torch.no_grad()
def test_the_router_averages_over_tokens(vit: nn.Module, bank: TaskVectorBank) -> None:
    router = next(iter(randomised(WEMoE(vit, bank, SCALE, seed=0)).routers.values()))
    tokens = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone = torch.stack([router(tokens[:, i : i + 1]) for i in range(5)])
    assert alone.std(dim=0).min() > 1e-3
    torch.testing.assert_close(router(tokens), alone.mean(dim=0))


def test_the_gradient_is_that_of_the_merged_model(
    vit: nn.Module, bank: TaskVectorBank, images: Tensor
) -> None:
    """∂L/∂r of a constant router is ∂L/∂λ, summed over the tensors of its MLP."""
    model = WEMoE(vit, bank, SCALE, seed=0)
    cubes(model(images)).backward()
    table = coefficients(bank, {}).requires_grad_()
    cubes(MergedModel(vit, bank)(images, table)).backward()
    assert table.grad is not None
    for name, router in model.routers.items():
        rows = [i for i, layer in enumerate(bank.layers) if layer.startswith(f"{name}.")]
        assert len(rows) == 4
        torch.testing.assert_close(router.output.bias.grad, table.grad[rows].sum(dim=0))


def test_gradient_reaches_all_of_the_routers_and_nothing_else(
    vit: nn.Module, bank: TaskVectorBank, images: Tensor
) -> None:
    model = randomised(WEMoE(vit, bank, SCALE, seed=0))
    cubes(model(images)).backward()
    trained = {id(weight) for router in model.routers.values() for weight in router.parameters()}
    assert len(trained) == 2 * 4
    for weight in model.parameters():
        assert weight.requires_grad == (id(weight) in trained)
        assert (weight.grad is not None and bool(weight.grad.any())) == (id(weight) in trained)
    assert not any(rows.requires_grad for rows in bank.vectors.values())


def test_training_lowers_the_loss_and_changes_nothing_but_routers(
    vit: nn.Module, bank: TaskVectorBank, images: Tensor
) -> None:
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    stored = {name: rows.clone() for name, rows in bank.vectors.items()}
    generator = torch.get_rng_state()
    target = functional_call(vit, bank.expert("svhn"), (images,))

    def loss(task: str, features: Tensor) -> Tensor:
        wanted = target[:2] if task == "svhn" else target[2:]
        return nn.functional.l1_loss(features, wanted)

    batch = {"svhn": images[:2], "cars": images[2:]}
    method = WeightEnsemblingMoE(steps=20, learning_rate=1e-2)
    model = method.fit(vit, bank, [batch] * 50, loss)
    again = method.fit(vit, bank, [batch] * 20, loss)
    start = method.build(vit, bank)

    def total(of: WEMoE) -> float:
        return sum(loss(task, of(part)).item() for task, part in batch.items())

    with torch.no_grad():
        assert total(model) < 0.9 * total(start)
        assert torch.equal(model(images), again(images))
    trained = {id(weight) for router in model.routers.values() for weight in router.parameters()}
    for weight, untouched in zip(model.parameters(), start.parameters(), strict=True):
        assert torch.equal(weight, untouched) == (id(weight) not in trained)
    assert all(torch.equal(before[name], now) for name, now in vit.state_dict().items())
    assert all(torch.equal(stored[name], rows) for name, rows in bank.vectors.items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_step_follows_the_sum_of_the_tasks_gradients(
    vit: nn.Module, bank: TaskVectorBank, images: Tensor
) -> None:
    model, joint = (randomised(WEMoE(vit, bank, SCALE, seed=0)) for _ in range(2))
    batch = {"svhn": images[:1], "cars": images[1:]}
    train_routers(model, [batch], lambda _, features: cubes(features), learning_rate=0.1)
    cubes(joint(images)).backward()
    for name, router in joint.routers.items():
        for weight, moved in zip(
            router.parameters(), model.routers[name].parameters(), strict=True
        ):
            assert weight.grad is not None
            # The first step of Adam is the sign of the gradient times the learning rate.
            step = -0.1 * weight.grad / (weight.grad.abs() + 1e-8)
            torch.testing.assert_close(moved, weight + step)


@torch.no_grad()
def test_a_tensor_that_no_expert_changed(vit: nn.Module, images: Tensor) -> None:
    start = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    experts = random_experts(start, TASKS)
    name = next(name for name in start if name.endswith(("fc1.bias", "c_fc.bias")))
    for expert in experts.values():
        expert[name] = start[name].clone()
    bank = TaskVectorBank.from_state_dicts(start, experts)
    expected = functional_call(vit, task_arithmetic(bank, scale=SCALE), (images,))
    # The bank holds float32, θ₀ is float64.
    torch.testing.assert_close(WEMoE(vit, bank, SCALE, 0)(images), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_task_vectors_are_referenced_and_may_be_short(vit: nn.Module, images: Tensor) -> None:
    bank = bank_of(vit, torch.bfloat16)
    model = WEMoE(vit, bank, SCALE, seed=0)
    expected = functional_call(vit, task_arithmetic(bank, scale=SCALE), (images,))
    torch.testing.assert_close(model(images), expected)
    storage = next(iter(bank.vectors.values())).untyped_storage().data_ptr()
    held = [t for n, t in model.named_buffers() if n.endswith("_vectors")]
    assert len(held) == 2 * 4
    assert all(vectors.untyped_storage().data_ptr() == storage for vectors in held)
    assert not any(name.endswith("_vectors") for name in model.state_dict())


def test_dropout_stays_off(vit: nn.Module, bank: TaskVectorBank) -> None:
    assert not any(module.training for module in WEMoE(vit, bank, SCALE, 0).train().modules())


class Gated(nn.Module):
    """Names as in timm's gated MLP: the second layer takes half of what the first gives."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = nn.Linear(4, 8), nn.GELU(), nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [(TinyBackbone, "the backbone has no MLP"), (Gated, "mlp: not an MLP of two linear layers")],
)
def test_other_backbones_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    backbone = make()
    with pytest.raises(MergingError, match=message):
        WeightEnsemblingMoE().build(backbone, bank_of(backbone))
