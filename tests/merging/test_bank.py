"""The bank: contents, storage, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statsmerging.choices import Anchor
from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.bank import SomeExperts
from statsmerging.merging.methods import simple_average, task_arithmetic

States = dict[str, dict[str, Tensor]]


def test_vectors_are_differences_in_one_contiguous_matrix_per_layer(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States
) -> None:
    for name in bank.layers:
        rows = bank.vectors[name]
        assert rows.shape == (3, pretrained[name].numel())
        assert rows.is_contiguous()
        for row, expert in zip(rows, experts.values(), strict=True):
            torch.testing.assert_close(row, (expert[name] - pretrained[name]).flatten())
    storages = {rows.untyped_storage().data_ptr() for rows in bank.vectors.values()}
    assert len(storages) == 1


def test_experts_come_back(bank: TaskVectorBank, experts: States) -> None:
    for task, expert in experts.items():
        restored = bank.expert(task)
        for name in bank.layers:
            torch.testing.assert_close(restored[name], expert[name])


def test_running_statistics_are_averaged_and_counters_kept(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States
) -> None:
    mean = torch.stack([e["normalisation.running_var"] for e in experts.values()]).mean(0)
    torch.testing.assert_close(bank.kept["normalisation.running_var"], mean)
    name = "normalisation.num_batches_tracked"
    assert torch.equal(bank.kept[name], pretrained[name])
    assert "normalisation.running_var" not in bank.layers


def test_unchanged_tensors_are_not_merged(pretrained: dict[str, Tensor], experts: States) -> None:
    for expert in experts.values():
        expert["projection.bias"] = pretrained["projection.bias"].clone()
    bank = TaskVectorBank.from_state_dicts(pretrained, experts)
    assert "projection.bias" not in bank.layers
    assert torch.equal(bank.merge(torch.ones(3))["projection.bias"], pretrained["projection.bias"])


@pytest.mark.parametrize("anchor", ["pretrained", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_equals_the_formula_in_float64(
    pretrained: dict[str, Tensor], experts: States, anchor: str, dtype: torch.dtype
) -> None:
    bank = TaskVectorBank.from_state_dicts(pretrained, experts, dtype=dtype)
    coefficients = torch.randn(len(bank.layers), 3, generator=torch.Generator().manual_seed(3))
    merged = bank.merge(coefficients, anchor)  # type: ignore[arg-type]
    # bfloat16 keeps 8 significant bits of every task vector.
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    for row, name in zip(coefficients.double(), bank.layers, strict=True):
        start = pretrained[name].double()
        differences = torch.stack([expert[name].double() - start for expert in experts.values()])
        factor = 1.0 if anchor == "pretrained" else row.sum()
        expected = factor * start + torch.tensordot(row, differences, dims=1)
        torch.testing.assert_close(merged[name].double(), expected, rtol=tolerance, atol=tolerance)


def test_memory_mapped_bank_equals_the_bank_in_memory(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States, tmp_path: Path
) -> None:
    file = tmp_path / "vectors.bin"
    mapped = TaskVectorBank.from_state_dicts(pretrained, experts, memory_map=file)
    assert file.stat().st_size == 4 * sum(rows.numel() for rows in bank.vectors.values())
    for name in bank.layers:
        assert torch.equal(mapped.vectors[name], bank.vectors[name])
    with pytest.raises(MergingError, match="on the CPU, not on cuda"):
        TaskVectorBank.from_state_dicts(pretrained, experts, device="cuda", memory_map=file)


def test_simple_average_of_two_columns_is_their_mean(bank: TaskVectorBank, experts: States) -> None:
    merged = simple_average(bank)
    for name in bank.layers:
        mean = torch.stack([expert[name] for expert in experts.values()]).mean(0)
        torch.testing.assert_close(merged[name], mean)


def test_task_arithmetic_at_zero_is_the_pretrained_model(
    bank: TaskVectorBank, pretrained: dict[str, Tensor]
) -> None:
    merged = task_arithmetic(bank, scale=0.0)
    for name in bank.layers:
        assert torch.equal(merged[name], pretrained[name])


@given(scale=st.floats(0, 1), order=st.permutations(["mnist", "svhn", "cars"]))
def test_order_of_experts_does_not_matter(scale: float, order: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"weight": torch.randn(4, 6, generator=generator)}
    states = {t: {"weight": torch.randn(4, 6, generator=generator)} for t in sorted(order)}
    first = task_arithmetic(TaskVectorBank.from_state_dicts(start, states), scale=scale)
    shuffled = {task: states[task] for task in order}
    second = task_arithmetic(TaskVectorBank.from_state_dicts(start, shuffled), scale=scale)
    torch.testing.assert_close(first["weight"], second["weight"])


def test_one_expert_at_one_is_that_expert(pretrained: dict[str, Tensor], experts: States) -> None:
    bank = TaskVectorBank.from_state_dicts(pretrained, {"mnist": experts["mnist"]})
    merged = task_arithmetic(bank, scale=1.0)
    for name in bank.layers:
        torch.testing.assert_close(merged[name], experts["mnist"][name])


def test_other_shapes_are_refused_with_names_and_both_shapes(
    pretrained: dict[str, Tensor], experts: States
) -> None:
    experts["svhn"]["projection.weight"] = torch.zeros(7, 4)
    del experts["svhn"]["projection.bias"]
    experts["svhn"]["extra"] = torch.zeros(1)
    with pytest.raises(MergingError) as refused:
        TaskVectorBank.from_state_dicts(pretrained, experts)
    message = str(refused.value)
    assert "expert svhn does not match in 3 tensor(s)" in message
    assert "'projection.weight': pre-trained (5, 4), expert svhn (7, 4)" in message
    assert "'projection.bias': pre-trained (5,), expert svhn missing" in message
    assert "'extra': pre-trained missing, expert svhn (1,)" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(
    pretrained: dict[str, Tensor], experts: States, value: float
) -> None:
    experts["cars"]["projection.weight"][0, 0] = value
    with pytest.raises(MergingError, match=r"expert cars: tensor 'projection\.weight'"):
        TaskVectorBank.from_state_dicts(pretrained, experts)


def test_nothing_to_merge_is_refused(pretrained: dict[str, Tensor]) -> None:
    with pytest.raises(MergingError, match="no expert"):
        TaskVectorBank.from_state_dicts(pretrained, {})
    with pytest.raises(MergingError, match="equal the pre-trained"):
        TaskVectorBank.from_state_dicts(pretrained, {"mnist": pretrained})


def test_coefficients_of_another_shape_are_refused(bank: TaskVectorBank) -> None:
    with pytest.raises(MergingError, match=r"shape \(2,\), expected \(6, 3\) or \(3,\)"):
        bank.merge(torch.ones(2))


def test_a_finer_expert_is_not_rounded_to_the_pretrained_type() -> None:
    start = torch.randn(200, generator=torch.Generator().manual_seed(0)).bfloat16()
    noise = 1e-3 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    tuned = start.float() + noise
    bank = TaskVectorBank.from_state_dicts({"weight": start}, {"mnist": {"weight": tuned}})
    torch.testing.assert_close(bank.vectors["weight"][0], tuned - start.float(), rtol=0, atol=0)


def test_half_precision_sums_are_rounded_once() -> None:
    """Eight small changes that bfloat16 would lose one by one."""
    generator = torch.Generator().manual_seed(0)
    start = (0.05 * torch.randn(70_000, generator=generator)).bfloat16()
    states = {
        f"t{k}": {"weight": start.float() + 4e-4 * torch.randn(70_000, generator=generator).abs()}
        for k in range(8)
    }
    bank = TaskVectorBank.from_state_dicts({"weight": start}, states)
    exact = start.double() + bank.vectors["weight"].double().mean(0)
    merged = simple_average(bank)["weight"]
    assert merged.dtype == torch.bfloat16
    assert (merged == exact.bfloat16()).double().mean() > 0.999  # ties at the last bit of float32
    whole = bank.merge(torch.full((8,), 1 / 8), "none")["weight"]
    assert (whole == exact.bfloat16()).double().mean() > 0.99


def test_what_an_expert_of_a_coarser_type_left_alone_is_no_task_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(64, generator=generator) for name in ("tuned", "frozen")}
    tuned = {name: value.bfloat16() for name, value in start.items()}
    tuned["tuned"][:8] += 1
    bank = TaskVectorBank.from_state_dicts(start, {"mnist": tuned})
    assert bank.layers == ("tuned",)
    assert torch.equal(bank.merge(torch.ones(1))["frozen"], start["frozen"])
    vector = bank.vectors["tuned"][0]
    assert not vector[8:].any()
    torch.testing.assert_close(vector[:8], tuned["tuned"][:8].float() - start["tuned"][:8])
    assert bank.rounding == {"tuned": torch.finfo(torch.bfloat16).eps}
    with pytest.raises(MergingError, match="equal the pre-trained"):
        TaskVectorBank.from_state_dicts(start, {"a": {n: t.half() for n, t in start.items()}})


def test_misspelt_choices_name_the_valid_ones(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States
) -> None:
    with pytest.raises(MergingError, match="anchor=pretrain: choose one of pretrained, none"):
        bank.merge(torch.ones(3), "pretrain")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="task=emnist: choose one of mnist, svhn, cars"):
        bank.expert("emnist")
    with pytest.raises(MergingError, match=r"dtype=torch\.int32: choose a floating-point type"):
        TaskVectorBank.from_state_dicts(pretrained, experts, dtype=torch.int32)


@pytest.mark.parametrize("anchor", ["pretrained", "none"])
@pytest.mark.parametrize("shape", [(6, 2), (2,)])
def test_some_experts_merge_like_a_bank_of_them_alone(
    pretrained: dict[str, Tensor], experts: States, anchor: Anchor, shape: tuple[int, ...]
) -> None:
    start, tuned = _double(pretrained), {task: _double(each) for task, each in experts.items()}
    pair = {task: tuned[task] for task in ("cars", "mnist")}  # another order than the bank's
    whole = TaskVectorBank.from_state_dicts(start, tuned, dtype=torch.float64)
    alone = TaskVectorBank.from_state_dicts(start, pair, dtype=torch.float64)
    some = SomeExperts(whole, pair)
    coefficients = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(
        some.merge(coefficients, anchor), alone.merge(coefficients, anchor), rtol=1e-13, atol=1e-13
    )
    for (name, rows), (_, expected) in zip(
        some.layer_vectors(), alone.layer_vectors(), strict=True
    ):
        assert torch.equal(rows, expected)
        assert some.vectors[name] is whole.vectors[name]
    torch.testing.assert_close(some.expert("cars"), alone.expert("cars"))
    assert [each.task for each in some.listed(coefficients)[:2]] == ["cars", "mnist"]


def test_some_experts_keep_the_layers_that_none_of_them_changed(
    pretrained: dict[str, Tensor], experts: States
) -> None:
    name = "projection.bias"
    for task in ("mnist", "svhn"):
        experts[task][name] = pretrained[name].clone()
    whole = TaskVectorBank.from_state_dicts(pretrained, experts)
    some = SomeExperts(whole, {task: experts[task] for task in ("mnist", "svhn")})
    assert some.layers == whole.layers
    assert torch.equal(some.merge(torch.ones(2))[name], pretrained[name])


def test_some_experts_are_of_the_bank(bank: TaskVectorBank, experts: States) -> None:
    with pytest.raises(MergingError, match="tasks=dtd: choose from mnist, svhn, cars"):
        SomeExperts(bank, {"mnist": experts["mnist"], "dtd": experts["svhn"]})
    with pytest.raises(MergingError, match="tasks=none: choose from mnist"):
        SomeExperts(bank, {})


def _double(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.double() if value.is_floating_point() else value
        for name, value in state.items()
    }
