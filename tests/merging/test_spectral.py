"""Singular directions of task vectors: merge, gradient and statistics against float64 formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.choices import DIRECTION_FEATURES
from statsmerging.merging import (
    Decomposition,
    DirectionStatistics,
    MergedModel,
    MergingError,
    SpectralBank,
    TaskVectorBank,
    direction_statistics,
    layer_statistics,
)
from statsmerging.merging.relations import relation_statistics
from tests.small_models import TinyAttention, TinyBackbone, random_experts

State = dict[str, Tensor]
Experts = Mapping[str, Mapping[str, Tensor]]

TASKS = ("mnist", "svhn", "cars")


# ---- the formula, in float64 and with torch.linalg.svd ---------------------------------------


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    product: Tensor = left @ right
    return product


def reference_directions(matrices: Tensor, how: Decomposition) -> tuple[Tensor, Tensor, Tensor]:
    """K × m × n → left m × D, values D, right D × n."""
    tasks, side = len(matrices), min(matrices.shape[1:])
    wanted = how.rank or max(1, math.floor(how.budget * side / tasks))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    rank = min(wanted, side)
    lefts = torch.cat(list(left[:, :, :rank]), dim=1)
    rights = torch.cat(list(right[:, :rank]), dim=0)
    if how.orthonormal:
        lefts, rights = polar(lefts), polar(rights)
    return lefts, values[:, :rank].flatten(), rights


def reference_merge(
    pretrained: Mapping[str, Tensor], experts: Experts, coefficients: Tensor, how: Decomposition
) -> State:
    """θ₀ + Σ_k Σ_i λ σ û v̂ᵀ of the merged layers, differentiable in λ, all in float64."""
    merged: State = {}
    taken = 0
    for name, start in pretrained.items():
        if not start.is_floating_point() or "running" in name:
            continue
        wide = start.double()
        changes = torch.stack([expert[name].double() - wide for expert in experts.values()])
        if wide.dim() < 2 or min(len(wide), wide[0].numel()) == 1:
            parts = [(torch.ones(1, len(changes)).double(), torch.ones(len(changes)).double())]
            rights = [changes.flatten(1)]
        else:
            matrices = changes.flatten(2)
            fused = how.split_attention and name.endswith("in_proj_weight")
            blocks = matrices.chunk(3, dim=1) if fused else [matrices]
            triples = [reference_directions(block, how) for block in blocks]
            parts = [(left, values) for left, values, _ in triples]
            rights = [right for _, _, right in triples]
        updates = []
        for (left, values), right in zip(parts, rights, strict=True):
            own = coefficients[taken : taken + len(values)]
            taken += len(values)
            updates.append(left @ torch.diag(own * values) @ right)
        merged[name] = wide + torch.cat(updates).view_as(wide)
    assert taken == len(coefficients)
    return merged


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).norm() / expected.norm())


# ---- merge and gradient ----------------------------------------------------------------------

DECOMPOSITIONS = {
    "default": Decomposition(),
    "rank 2": Decomposition(rank=2),
    "full rank": Decomposition(rank=99),
    "budget 2": Decomposition(budget=2.0),
    "raw": Decomposition(rank=2, orthonormal=False),
    "split attention": Decomposition(split_attention=True),
    "bfloat16": Decomposition(rank=2, dtype=torch.bfloat16),
    "raw bfloat16": Decomposition(rank=99, orthonormal=False, dtype=torch.bfloat16),
}


def model_and_experts(kind: type[nn.Module]) -> tuple[nn.Module, State, Experts]:
    torch.manual_seed(0)
    model = kind().eval()
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return model, pretrained, random_experts(pretrained, TASKS)


@pytest.mark.parametrize("kind", [TinyBackbone, TinyAttention])
@pytest.mark.parametrize("how", DECOMPOSITIONS.values(), ids=DECOMPOSITIONS)
def test_merge_and_gradient_equal_float64_autograd(
    kind: type[nn.Module], how: Decomposition
) -> None:
    model, pretrained, experts = model_and_experts(kind)
    bank = SpectralBank.from_state_dicts(pretrained, experts, how)
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(6, 3, 8, 8, generator=generator)
    row = 1 + 0.3 * torch.randn(sum(bank.sizes.values()), generator=generator)

    exact = row.double().requires_grad_()
    weights = reference_merge(pretrained, experts, exact, how)
    kept = {name: value.double() for name, value in bank.kept.items()}
    expected = functional_call(kind().eval().double(), {**kept, **weights}, (images.double(),))
    (gradient,) = torch.autograd.grad(expected.square().sum(), exact)

    student = MergedModel(model, bank)
    coefficients = row.clone().requires_grad_()
    output = student(images, coefficients)
    output.square().sum().backward()
    assert coefficients.grad is not None
    tolerance = 1e-5 if how.dtype == torch.float32 else 1e-2
    for name, value in bank.merge(row).items():
        if name in weights:
            update = weights[name].detach() - pretrained[name].double()
            assert relative_error(value - pretrained[name], update) < tolerance, name
    assert relative_error(output, expected.detach()) < tolerance
    assert relative_error(coefficients.grad, gradient) < 3 * tolerance


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    tasks=st.integers(1, 4),
    rank=st.none() | st.integers(1, 10),
    orthonormal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_merge_of_any_shape(
    shape: tuple[int, int], tasks: int, rank: int | None, orthonormal: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = {"w": torch.zeros(shape)}
    experts = {f"t{k}": {"w": torch.randn(shape, generator=generator)} for k in range(tasks)}
    how = Decomposition(rank=rank, orthonormal=orthonormal)
    bank = SpectralBank.from_state_dicts(start, experts, how)
    row = torch.randn(bank.sizes["w"], generator=generator)
    tolerance = 1e-5
    if orthonormal and min(shape) > 1:
        # Directions of two experts that are nearly parallel are ill-conditioned.
        matrices = torch.stack([expert["w"] for expert in experts.values()]).double()
        left, _, right = reference_directions(matrices, replace(how, orthonormal=False))
        smallest = float(min(torch.linalg.svdvals(left)[-1], torch.linalg.svdvals(right)[-1]))
        assume(smallest > 1e-3)
        tolerance /= smallest
    expected = reference_merge(start, experts, row.double(), how)["w"]
    torch.testing.assert_close(bank.merge(row)["w"].double(), expected, rtol=0, atol=tolerance)


def test_every_direction_of_raw_vectors_is_task_arithmetic() -> None:
    """With one coefficient for all directions of an expert."""
    _, pretrained, experts = model_and_experts(TinyAttention)
    bank = TaskVectorBank.from_state_dicts(pretrained, experts)
    spectral = SpectralBank.from_bank(bank, Decomposition(rank=99, orthonormal=False))
    per_task = torch.tensor([0.2, -0.4, 1.1])
    row = per_task[direction_statistics(spectral).task]
    for name, value in bank.merge(per_task).items():
        torch.testing.assert_close(spectral.merge(row)[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("orthonormal", [True, False])
@pytest.mark.parametrize("split_attention", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_expert_is_given_back(
    orthonormal: bool, split_attention: bool, dtype: torch.dtype
) -> None:
    """To the rounding of its own type, also where one entry of a bias moved by one step."""
    _, pretrained, experts = model_and_experts(TinyAttention)
    start = {name: value.to(dtype) for name, value in pretrained.items()}
    expert = {name: value.to(dtype) for name, value in experts["mnist"].items()}
    bias = start["patches.bias"].clone()
    bias[0] *= 1 + 2 * torch.finfo(dtype).eps
    expert["patches.bias"] = bias
    how = Decomposition(orthonormal=orthonormal, split_attention=split_attention)
    bank = SpectralBank.from_state_dicts(start, {"mnist": expert}, how)
    merged = bank.merge(torch.ones(sum(bank.sizes.values())))
    assert merged.keys() == expert.keys()
    assert torch.equal(merged["patches.bias"], expert["patches.bias"])
    for name, value in expert.items():
        assert merged[name].dtype == dtype
        assert relative_error(merged[name], value.double()) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("how", DECOMPOSITIONS.values(), ids=DECOMPOSITIONS)
def test_order_of_experts_does_not_matter(how: Decomposition) -> None:
    _, pretrained, experts = model_and_experts(TinyAttention)
    order = [2, 0, 1]
    first = SpectralBank.from_state_dicts(pretrained, experts, how)
    other = SpectralBank.from_state_dicts(
        pretrained, {TASKS[k]: experts[TASKS[k]] for k in order}, how
    )
    row = torch.randn(sum(first.sizes.values()), generator=torch.Generator().manual_seed(0))

    def permuted(numbers: Tensor) -> Tensor:
        """One number or row per direction, in the order of the other bank."""
        parts = numbers.split(list(first.sizes.values()))
        blocks = [len(directions.values) for directions in first.directions.values()]
        return torch.cat(
            [
                part.reshape(block, 3, -1, *part.shape[1:])[:, order].reshape(part.shape)
                for part, block in zip(parts, blocks, strict=True)
            ]
        )

    tolerance = 1e-5 if how.dtype == torch.float32 else 2e-2
    merged, again = first.merge(row), other.merge(permuted(row))
    for name, value in merged.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=tolerance)
    statistics, others = direction_statistics(first), direction_statistics(other)
    torch.testing.assert_close(permuted(statistics.values), others.values, rtol=1e-4, atol=1e-4)
    places = {(c.layer, c.task, c.direction): c.value for c in first.listed(row)}
    for c in other.listed(permuted(row)):
        assert places[c.layer, c.task, c.direction] == c.value


def test_directions_are_the_same_from_a_bank_and_from_state_dicts(tmp_path: Path) -> None:
    """Also where the types of the layers differ, and where the bank is in a file."""
    _, pretrained, experts = model_and_experts(TinyAttention)
    coarse = {
        task: {
            name: value.bfloat16() if name.startswith("patches") else value
            for name, value in expert.items()
        }
        for task, expert in experts.items()
    }
    how = Decomposition(split_attention=True)
    direct = SpectralBank.from_state_dicts(pretrained, coarse, how)
    for memory_map in (None, tmp_path / "bank"):
        bank = TaskVectorBank.from_state_dicts(pretrained, coarse, memory_map=memory_map)
        through = SpectralBank.from_bank(bank, how)
        assert through.tasks == direct.tasks
        assert through.sizes == direct.sizes
        for name, directions in direct.directions.items():
            other = through.directions[name]
            for part in ("left", "values", "right", "statistics"):
                torch.testing.assert_close(
                    getattr(other, part), getattr(directions, part), rtol=1e-5, atol=1e-6
                )


def test_student_moves_and_converts_with_its_directions() -> None:
    model, pretrained, experts = model_and_experts(TinyAttention)
    bank = SpectralBank.from_state_dicts(pretrained, experts)
    student = MergedModel(model, bank).double()
    row = torch.ones(sum(bank.sizes.values()), requires_grad=True)  # the learner stays in float32
    output = student(torch.randn(2, 3, 8, 8, dtype=torch.float64), row)
    output.sum().backward()
    assert output.dtype == torch.float64
    assert row.grad is not None
    assert row.grad.dtype == torch.float32
    for name, parameter in student.backbone.named_parameters():
        assert parameter.data_ptr() == bank.pretrained[name].data_ptr()


def test_listed_tells_every_coefficient_with_its_place() -> None:
    _, pretrained, experts = model_and_experts(TinyAttention)
    bank = SpectralBank.from_state_dicts(pretrained, experts, Decomposition(split_attention=True))
    row = torch.arange(sum(bank.sizes.values())).float()
    listed = bank.listed(row)
    assert [coefficient.value for coefficient in listed] == row.tolist()
    own = [c for c in listed if c.layer == "attention.in_proj_weight[1]" and c.task == "svhn"]
    name = "attention.in_proj_weight"
    change = (experts["svhn"][name] - pretrained[name])[6:12]
    assert [c.direction for c in own] == [0, 1]  # 6 // 3 of each expert
    assert [c.singular_value for c in own] == pytest.approx(
        torch.linalg.svdvals(change.double())[:2].tolist()
    )
    whole = [c for c in listed if c.layer == "patches.bias"]
    assert [(c.task, c.direction) for c in whole] == [(task, 0) for task in TASKS]


def test_a_fused_matrix_without_three_equal_parts_stays_whole() -> None:
    """Fewer keys and values than queries: 4 + 2 + 2 rows."""
    start = {"attn.qkv.weight": torch.randn(8, 5)}
    experts = {task: {name: torch.randn(8, 5) for name in start} for task in TASKS}
    whole = SpectralBank.from_state_dicts(start, experts)
    split = SpectralBank.from_state_dicts(start, experts, Decomposition(split_attention=True))
    assert split.sizes == whole.sizes
    row = torch.ones(whole.sizes["attn.qkv.weight"])
    assert torch.equal(split.merge(row)["attn.qkv.weight"], whole.merge(row)["attn.qkv.weight"])


# ---- statistics ------------------------------------------------------------------------------


def reference_statistics(start: Tensor, matrices: Tensor, rank: int) -> dict[str, Tensor]:
    """Closed forms, K·r each: θ₀ m × n and K × m × n task matrices, float64."""
    tasks = len(matrices)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    columns: dict[str, list[float]] = {}
    for k in range(tasks):
        for i in range(rank):
            u, sigma, v = left[k, :, i], values[k, i], right[k, i]
            others = [j for j in range(tasks) if j != k]
            along_u = sum(float((u @ matrices[j]).square().sum()) for j in others)
            along_v = sum(float((matrices[j] @ v).square().sum()) for j in others)
            mean_energy = start.square().sum() / start.shape[1] if start.any() else 1.0
            of_direction = {
                "singular_value": math.log(sigma),
                "relative_value": sigma / values[k, 0],
                "position": i / rank,
                "energy": sigma**2 / matrices[k].square().sum(),
                "left_interference": math.log(1 + along_u / sigma**2),
                "right_interference": math.log(1 + along_v / sigma**2),
                "alignment": max(-1, min(1, sum(u @ matrices[j] @ v for j in others) / sigma)),
                "pretrained_energy": math.log(1 + (start @ v).square().sum() / mean_energy),
                "experts": math.log(tasks),
            }
            for name, value in of_direction.items():
                columns.setdefault(name, []).append(float(value))
    return {name: torch.tensor(numbers).double() for name, numbers in columns.items()}


@pytest.mark.parametrize("split_attention", [True, False])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_statistics_are_those_of_the_raw_directions(
    split_attention: bool, orthonormal: bool
) -> None:
    _, pretrained, experts = model_and_experts(TinyAttention)
    how = Decomposition(rank=2, orthonormal=orthonormal, split_attention=split_attention)
    bank = SpectralBank.from_state_dicts(pretrained, experts, how)
    statistics = direction_statistics(bank)
    assert statistics.orthonormal == orthonormal
    assert statistics.present.all()
    for number, (name, start) in enumerate(bank.pretrained.items()):
        changes = torch.stack([expert[name] for expert in experts.values()]).double() - start
        whole = start.dim() == 1
        matrix = start.double().reshape((1, -1) if whole else (len(start), -1))
        blocks = 3 if split_attention and name == "attention.in_proj_weight" else 1
        parts = zip(
            matrix.chunk(blocks),
            changes.view(3, *matrix.shape).chunk(blocks, dim=1),
            strict=True,
        )
        rank = 1 if whole else 2
        own = [reference_statistics(*part, rank) for part in parts]
        chosen = statistics.layer == number
        assert statistics.whole[chosen].unique().tolist() == [whole]
        assert (
            statistics.task[chosen].tolist() == [0] * rank + [1] * rank + [2] * rank
            if (blocks == 1)
            else 3 * ([0] * rank + [1] * rank + [2] * rank)
        )
        for column in own[0]:
            expected = torch.cat([block[column] for block in own])
            found = statistics.values[chosen, statistics.columns.index(column)]
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5, msg=column)


def test_the_place_of_its_layer_stands_beside_a_direction() -> None:
    _, pretrained, experts = model_and_experts(TinyAttention)
    bank = SpectralBank.from_state_dicts(pretrained, experts)
    statistics = direction_statistics(bank)
    column = statistics.columns.index
    depth = torch.linspace(0, 1, len(bank.layers))
    torch.testing.assert_close(statistics.values[:, column("depth")], depth[statistics.layer])
    for number, name in enumerate(bank.layers):
        of_kind = statistics.values[:, column(f"kind_{name}")]
        assert torch.equal(of_kind, (statistics.layer == number).float())


def tiny_statistics() -> tuple[TaskVectorBank, DirectionStatistics]:
    """With those of the layers, and their relations, beside them."""
    _, pretrained, experts = model_and_experts(TinyAttention)
    bank = TaskVectorBank.from_state_dicts(pretrained, experts)
    directions = direction_statistics(SpectralBank.from_bank(bank))
    layers = layer_statistics(bank, of="task_vectors").beside(relation_statistics(bank))
    return bank, directions.beside(layers)


def test_layer_statistics_stand_beside_their_directions() -> None:
    bank, statistics = tiny_statistics()
    layers = layer_statistics(bank, of="task_vectors")
    for name, values in zip(layers.columns, layers.values.unbind(2), strict=True):
        if name != "mean":  # it alone does not span orders of magnitude
            values = values.clamp_min(1e-12 * float(values.max())).log()
        found = statistics.values[:, statistics.columns.index(f"layer_{name}")]
        expected = values[statistics.layer, statistics.task]
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_layer_statistic_that_is_zero_everywhere_is_no_nan() -> None:
    """σ₉ of matrices with six rows."""
    bank, _ = tiny_statistics()
    directions = direction_statistics(SpectralBank.from_bank(bank))
    statistics = directions.beside(layer_statistics(bank, rank=9))
    assert torch.isfinite(statistics.values).all()
    ninth = statistics.values[:, statistics.columns.index("layer_singular_value_9")]
    assert len(ninth.unique()) == 1


def test_statistics_of_other_layers_or_experts_are_refused() -> None:
    bank, statistics = tiny_statistics()
    layers = layer_statistics(bank)
    fewer = replace(layers, values=layers.values[1:], layers=layers.layers[1:])
    with pytest.raises(MergingError, match=r"of 5 layers of mnist, svhn, cars, beside .* 6 layers"):
        statistics.beside(fewer)
    turned = replace(layers, values=layers.values.flip(1), tasks=layers.tasks[::-1])
    with pytest.raises(MergingError, match=r"of cars, svhn, mnist, beside .* of mnist, svhn, cars"):
        statistics.beside(turned)


@pytest.mark.parametrize("left_out", DIRECTION_FEATURES)
def test_one_feature_can_be_left_out(left_out: str) -> None:
    _, statistics = tiny_statistics()
    rest = statistics.select([feature for feature in DIRECTION_FEATURES if feature != left_out])
    missing = [name for name in statistics.columns if name not in rest.columns]
    beginning = {"layer": "layer_", "kind": "kind_", "tensor": "tensor_"}.get(left_out)
    if beginning is not None:
        assert missing == [name for name in statistics.columns if name.startswith(beginning)]
    elif left_out == "interference":
        assert missing == ["left_interference", "right_interference"]
    elif left_out == "relations":
        assert missing == ["cosine", "relative_norm", "sign_agreement"]
    else:
        assert missing == [left_out]
    for name, values in zip(rest.columns, rest.values.T, strict=True):
        assert torch.equal(values, statistics.values[:, statistics.columns.index(name)])


def test_an_unknown_feature_is_told_with_the_choices() -> None:
    _, statistics = tiny_statistics()
    expected = r"features=\['spin'\]: choose at least one of singular_value, .*, relations"
    with pytest.raises(MergingError, match=expected):
        statistics.select(["spin"])  # type: ignore[list-item]
    with pytest.raises(MergingError, match="choose at least one of"):
        statistics.select([])


# ---- experts of low rank, small changes, bad input -------------------------------------------

PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "experts in bfloat16": (torch.float32, torch.bfloat16),
    "all in bfloat16": (torch.bfloat16, torch.bfloat16),
    "all in float16": (torch.float16, torch.float16),
}


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("bank_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outliers", [1.0, 30.0])
def test_directions_beyond_the_rank_are_zero(
    precision: tuple[torch.dtype, torch.dtype], bank_type: torch.dtype, outliers: float
) -> None:
    """LoRA experts of rank 2, in a network some of whose channels have large weights."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(48, 64, generator=generator)
    start[:2] *= outliers
    changes = [
        0.01 * torch.randn(48, 2, generator=generator) @ torch.randn(2, 64, generator=generator)
        for _ in TASKS
    ]
    stored = start.to(precision[0])
    experts = {
        task: {"w": (stored.float() + change).to(precision[1])}
        for task, change in zip(TASKS, changes, strict=True)
    }
    bank = TaskVectorBank.from_state_dicts({"w": stored}, experts, dtype=bank_type)
    spectral = SpectralBank.from_bank(bank)  # of each, 16 directions are asked for
    values = spectral.directions["w"].values.view(3, 16)
    assert (values > 0).sum(dim=1).tolist() == [2, 2, 2]
    statistics = direction_statistics(spectral)
    absent = statistics.values[~statistics.present][:, : statistics.columns.index("experts") + 1]
    assert len(absent) == 3 * 14
    assert not absent.any()
    row = torch.ones(48)
    assert len(spectral.listed(row)) == 6
    # What a coefficient of an absent direction is makes no difference.
    moved = torch.where(statistics.present, row, 1e6)
    assert torch.equal(spectral.merge(moved)["w"], spectral.merge(row)["w"])
    gradient = spectral.layer_gradient("w", torch.randn(48, 64, generator=generator))
    assert torch.equal(gradient != 0, statistics.present)


def test_a_layer_that_no_expert_changed_is_kept() -> None:
    _, pretrained, experts = model_and_experts(TinyAttention)
    same = {
        task: {**expert, "patches.weight": pretrained["patches.weight"]}
        for task, expert in experts.items()
    }
    bank = SpectralBank.from_state_dicts(pretrained, same)
    assert "patches.weight" not in bank.layers
    merged = bank.merge(torch.ones(sum(bank.sizes.values())))
    assert merged.keys() == pretrained.keys()
    assert torch.equal(merged["patches.weight"], pretrained["patches.weight"])


@pytest.mark.parametrize("shape", [(6, 9), (5,)])
def test_a_layer_that_one_expert_changed(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(shape, generator=generator)}
    change = torch.randn(shape, generator=generator)
    experts = {"a": start, "b": {"w": start["w"] + change}, "c": start}
    bank = SpectralBank.from_state_dicts(start, experts, Decomposition(rank=6))
    row = torch.ones(bank.sizes["w"])
    torch.testing.assert_close(bank.merge(row)["w"], experts["b"]["w"], rtol=0, atol=1e-5)
    assert {coefficient.task for coefficient in bank.listed(row)} == {"b"}
    statistics = direction_statistics(bank)
    assert torch.equal(statistics.present, statistics.task == 1)
    assert torch.isfinite(statistics.values).all()


def test_a_single_expert_stands_to_no_other() -> None:
    """To the bit: a learner would blow rounding up."""
    _, pretrained, experts = model_and_experts(TinyAttention)
    bank = SpectralBank.from_state_dicts(pretrained, {"mnist": experts["mnist"]})
    statistics = direction_statistics(bank).select(["interference", "alignment", "experts"])
    assert not statistics.values.any()


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e15])
def test_changes_of_any_size_have_finite_statistics(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.zeros(4, 5), "b": torch.zeros(4), "other": torch.zeros(4)}
    experts = {
        task: {
            name: torch.randn(value.shape, generator=generator) * (size if k else 1.0)
            for name, value in start.items()
        }
        for k, task in enumerate(TASKS)
    }
    statistics = direction_statistics(SpectralBank.from_state_dicts(start, experts))
    assert torch.isfinite(statistics.values).all()


def test_more_experts_than_directions() -> None:
    """Each keeps one, and they share the room."""
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.zeros(3, 4)}
    experts = {f"t{k}": {"w": torch.randn(3, 4, generator=generator)} for k in range(7)}
    bank = SpectralBank.from_state_dicts(start, experts)
    assert bank.sizes == {"w": 7}
    row = torch.randn(7, generator=generator)
    expected = reference_merge(start, experts, row.double(), Decomposition())["w"]
    torch.testing.assert_close(bank.merge(row)["w"].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("how", "size"),
    [
        (Decomposition(), 2),
        (Decomposition(rank=1), 1),
        (Decomposition(rank=6), 6),
        (Decomposition(rank=7), 6),
        (Decomposition(budget=1e-9), 1),
        (Decomposition(budget=2), 4),
        (Decomposition(budget=1e308), 6),
        (Decomposition(rank=3, budget=2), 3),
    ],
)
def test_number_of_directions(how: Decomposition, size: int) -> None:
    """Of each of three experts, in a matrix of 6 × 9."""
    start = {"w": torch.zeros(6, 9)}
    experts = {task: {"w": torch.randn(6, 9)} for task in TASKS}
    assert SpectralBank.from_state_dicts(start, experts, how).sizes == {"w": 3 * size}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank=0: must be at least 1"),
        ({"rank": -2}, "rank=-2: must be at least 1"),
        ({"budget": 0.0}, "budget=0: must be above 0 and finite"),
        ({"budget": -1.0}, "budget=-1: must be above 0 and finite"),
        ({"budget": math.nan}, "budget=nan: must be above 0 and finite"),
        ({"budget": math.inf}, "budget=inf: must be above 0 and finite"),
        ({"dtype": torch.int32}, "dtype=torch.int32: choose a floating-point type"),
    ],
)
def test_wrong_decompositions(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(MergingError, match=f"^{message}"):
        Decomposition(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensor", "value"),
    [("projection.weight", math.nan), ("normalisation.running_mean", math.inf)],
)
def test_weights_that_are_no_numbers_are_named(
    pretrained: State, experts: dict[str, State], tensor: str, value: float
) -> None:
    experts["svhn"][tensor].view(-1)[0] = value
    with pytest.raises(MergingError, match=f"expert svhn: tensor '{tensor}' holds NaN or infinite"):
        SpectralBank.from_state_dicts(pretrained, experts)


def test_experts_that_cannot_be_merged(pretrained: State, experts: dict[str, State]) -> None:
    with pytest.raises(MergingError, match="there is no expert to merge"):
        SpectralBank.from_state_dicts(pretrained, {})
    with pytest.raises(MergingError, match="equal the pre-trained model in every tensor"):
        SpectralBank.from_state_dicts(pretrained, {"mnist": pretrained})
    other = {**experts["mnist"], "projection.weight": torch.zeros(2, 2)}
    with pytest.raises(MergingError, match=r"expert mnist does not match .*projection\.weight"):
        SpectralBank.from_state_dicts(pretrained, {"mnist": other})
    start = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    rounded = {"w": start / 0.7 * 0.7}
    assert not torch.equal(rounded["w"], start)
    with pytest.raises(MergingError, match="differ from the pre-trained model by rounding alone"):
        SpectralBank.from_state_dicts({"w": start}, {"mnist": rounded})


def test_directions_start_from_the_pretrained_weights(
    backbone: TinyBackbone, bank: TaskVectorBank
) -> None:
    spectral = SpectralBank.from_bank(bank)
    row = torch.ones(sum(spectral.sizes.values()))
    for call in (
        lambda: spectral.merge(row, "none"),
        lambda: MergedModel(backbone, spectral, "none"),
        lambda: spectral.merge(row, "elsewhere"),  # type: ignore[arg-type]
    ):
        with pytest.raises(MergingError, match=r"anchor=.*: singular directions start from θ₀"):
            call()


@pytest.mark.parametrize("shape", [(3,), (6, 3), ()])
def test_another_number_of_coefficients(bank: TaskVectorBank, shape: tuple[int, ...]) -> None:
    spectral = SpectralBank.from_bank(bank)
    size = sum(spectral.sizes.values())
    message = rf"coefficients have shape \({', '.join(map(str, shape))},?\), expected \({size},\)"
    for call in (spectral.merge, spectral.listed):
        with pytest.raises(MergingError, match=message):
            call(torch.ones(shape))
