"""Fisher merging and RegMean against their definitions; refusals of unfit evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import Evidence, EvidenceMethod
from statsmerging.merging.methods.checks import TASKS
from statsmerging.merging.methods.fisher import Fisher
from statsmerging.merging.methods.regmean import RegMean
from tests.merging.methods.reference import as_matrix, task_vectors, updates

Collected = dict[str, dict[str, Tensor]]


def copied(evidence: Evidence) -> Collected:
    return {task: {n: t.clone() for n, t in of.items()} for task, of in evidence.items()}


@pytest.mark.parametrize("normalise", [True, False])
def test_fisher(bank: TaskVectorBank, fishers: Evidence, normalise: bool) -> None:
    floor = 1e-2
    norms = {
        task: np.sqrt(sum(float(f.double().square().sum()) for f in fishers[task].values()))
        if normalise
        else 1.0
        for task in TASKS
    }
    found = updates(bank, Fisher(normalise, floor).merge(bank, fishers))
    for name, vectors in task_vectors(bank).items():
        if name == "token":
            expected = vectors.mean(0)
        else:
            weights = np.stack(
                [np.maximum(fishers[t][name].double().numpy() / norms[t], floor) for t in TASKS]
            )
            expected = (weights * vectors).sum(0) / weights.sum(0)
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


def test_equal_fishers_average(bank: TaskVectorBank, fishers: Evidence) -> None:
    found = updates(bank, Fisher().merge(bank, dict.fromkeys(TASKS, fishers["mnist"])))
    for name, vectors in task_vectors(bank).items():
        np.testing.assert_allclose(found[name], vectors.mean(0), atol=1e-6)


def test_the_unit_of_a_task_matters_only_without_normalising(
    bank: TaskVectorBank, fishers: Evidence
) -> None:
    scaled = copied(fishers)
    scaled["svhn"] = {name: 1000 * f for name, f in scaled["svhn"].items()}
    tiny = 1e-30
    for normalise in (True, False):
        method = Fisher(normalise, tiny)
        first, second = method.merge(bank, fishers), method.merge(bank, scaled)
        same = torch.allclose(first["linear"], second["linear"], atol=1e-5)
        assert same == normalise


@pytest.mark.parametrize("off_diagonal", [0.0, 0.3, 0.9, 1.0])
def test_regmean(bank: TaskVectorBank, grams: Evidence, off_diagonal: float) -> None:
    found = updates(bank, RegMean(off_diagonal).merge(bank, grams))
    for name, vectors in task_vectors(bank).items():
        if name not in grams["mnist"]:
            np.testing.assert_allclose(found[name], vectors.mean(0), atol=1e-6)
            continue
        numerator, denominator = np.zeros(as_matrix(vectors[0]).shape), np.zeros((12, 12))
        start = as_matrix(bank.pretrained[name].double().numpy())
        for task, vector in zip(TASKS, vectors, strict=True):
            gram = grams[task][name].double().numpy()
            shrunk = off_diagonal * gram + (1 - off_diagonal) * np.diag(np.diag(gram))
            numerator += (start + as_matrix(vector)) @ shrunk
            denominator += shrunk
        expected = numerator @ np.linalg.inv(denominator) - start
        np.testing.assert_allclose(as_matrix(found[name]), expected, atol=1e-5)


def test_regmean_is_the_least_squares_fit_to_the_experts(
    bank: TaskVectorBank, inputs: Evidence, grams: Evidence
) -> None:
    merged = RegMean(off_diagonal=1.0).merge(bank, grams)["linear"].double()
    experts = [bank.expert(task)["linear"].double() for task in TASKS]
    stacked = torch.cat([inputs[task]["linear"].double() for task in TASKS])
    targets = torch.cat(
        [inputs[t]["linear"].double() @ w.mT for t, w in zip(TASKS, experts, strict=True)]
    )
    expected = torch.linalg.lstsq(stacked, targets).solution.mT
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)


def test_regmean_averages_for_inputs_that_are_never_active(
    bank: TaskVectorBank, grams: Evidence
) -> None:
    dead = copied(grams)
    for of_task in dead.values():
        of_task["linear"][5] = of_task["linear"][:, 5] = 0
        of_task["convolution"].zero_()
    merged = RegMean().merge(bank, dead)
    found, vectors = updates(bank, merged), task_vectors(bank)
    np.testing.assert_allclose(found["linear"][:, 5], vectors["linear"].mean(0)[:, 5], atol=1e-6)
    np.testing.assert_allclose(found["convolution"], vectors["convolution"].mean(0), atol=1e-6)


def spoil(collected: Collected, how: str) -> None:
    linear = collected["svhn"]["linear"]
    if how == "no task":
        del collected["svhn"]
    elif how == "no layer":
        collected["svhn"] = {"other": linear}
    elif how == "a layer of some tasks":
        del collected["svhn"]["linear"]
    elif how == "another shape":
        collected["svhn"]["linear"] = linear[:5]
    elif how == "not finite":
        linear[0, 0] = torch.nan


@pytest.mark.parametrize("method", [Fisher(), RegMean()], ids=["fisher", "regmean"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no task", "there is no evidence for task svhn"),
        ("no layer", "evidence for task svhn names none of the merged layers"),
        ("a layer of some tasks", "'linear': evidence for task mnist, but none for svhn"),
        ("another shape", r"'linear': evidence for task svhn has shape \(5, 12\), expected \("),
        ("not finite", "'linear': evidence for task svhn has NaN or infinite values"),
    ],
)
def test_unfit_evidence_is_refused(
    bank: TaskVectorBank,
    fishers: Evidence,
    grams: Evidence,
    method: EvidenceMethod,
    how: str,
    message: str,
) -> None:
    collected = copied(fishers if method.needs == "gradients" else grams)
    method.merge(bank, collected)
    spoil(collected, how)
    with pytest.raises(MergingError, match=message):
        method.merge(bank, collected)


def test_fishers_that_cannot_be_are_refused(bank: TaskVectorBank, fishers: Evidence) -> None:
    negative, nothing = copied(fishers), copied(fishers)
    negative["cars"]["bias"][0] = -1
    with pytest.raises(MergingError, match="'bias': a Fisher diagonal has negative entries"):
        Fisher().merge(bank, negative)
    for diagonal in nothing["cars"].values():
        diagonal.zero_()
    with pytest.raises(MergingError, match="diagonal of task cars is zero in every layer"):
        Fisher().merge(bank, nothing)
