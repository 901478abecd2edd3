"""Paired statistics against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from statsmerging.report.significance import bootstrap_interval, holm, mcnemar, wilcoxon


def values(better: int, worse: int, equal: int) -> np.ndarray:
    """Differences of one seed each: +1, −1 and 0."""
    return np.repeat([1.0, -1.0, 0.0], [better, worse, equal])


def test_identical_methods_differ_by_nothing() -> None:
    assert bootstrap_interval([np.zeros((1, 50)), np.zeros((1, 7))]) == (0.0, 0.0)
    assert mcnemar(np.zeros(50)) == (0, 0, 1.0)
    assert wilcoxon([0.0, 0.0]) == 1.0


@pytest.mark.parametrize(("better", "worse"), [(3, 12), (40, 25), (1, 0), (6, 6)])
def test_mcnemar_is_the_binomial_test_of_the_images_that_differ(better: int, worse: int) -> None:
    votes = mcnemar(values(better, worse, equal=100))
    assert votes[:2] == (better, worse)
    assert votes.p == stats.binomtest(better, better + worse, 0.5).pvalue


def test_an_image_has_one_vote_whatever_the_number_of_seeds() -> None:
    shares = np.array([1 / 3, 2 / 3, -1 / 3, 0.1 + 0.2 - 0.3])
    assert mcnemar(shares)[:2] == (2, 1)


def test_the_interval_of_a_large_sample_is_the_normal_one() -> None:
    tasks = [values(900, 600, 8500), values(300, 450, 4250)]
    mean = np.mean([task.mean() for task in tasks])
    error = math.sqrt(sum(task.var() / len(task) for task in tasks)) / len(tasks)
    low, high = bootstrap_interval([task[None] for task in tasks])
    assert low == pytest.approx(mean - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.05 * error)


def test_tasks_weigh_the_same_whatever_their_number_of_images() -> None:
    small, large = np.full((1, 10), 0.5), np.full((1, 1000), -0.1)
    assert bootstrap_interval([small, large]) == pytest.approx((0.2, 0.2))


def test_the_interval_does_not_depend_on_the_order_of_images() -> None:
    task = values(30, 20, 150)
    shuffled = np.random.default_rng(1).permutation(task)
    assert bootstrap_interval([task[None]]) == bootstrap_interval([shuffled[None]])


def test_zoos_that_disagree_widen_the_interval() -> None:
    one = values(60, 40, 900)
    same, opposed = np.stack([one, one, one]), np.stack([one + 0.1, one, one - 0.1])
    narrow, wide = bootstrap_interval([same]), bootstrap_interval([opposed])
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    # Whole zoos are drawn: without any noise of images their means remain, of 27 draws one each.
    constant = np.array([[0.3] * 5, [0.0] * 5, [-0.3] * 5])
    assert bootstrap_interval([constant]) == pytest.approx((-0.3, 0.3))


def test_images_are_the_same_in_all_zoos() -> None:
    """With equal outcomes, three zoos tell no more than one."""
    one = values(60, 40, 900)
    error = one.std() / math.sqrt(len(one))
    low, high = bootstrap_interval([np.stack([one, one, one])])
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_in_the_same_order(raw: list[float]) -> None:
    corrected = holm(raw)
    for value, before in zip(corrected, raw, strict=True):
        assert before <= value <= min(1.0, len(raw) * before)
    order = np.argsort(raw, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_wilcoxon_by_hand() -> None:
    # Of 2⁵ signs two are as extreme as all five positive; a task without difference is left out.
    assert wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5, 0.0]) == pytest.approx(2 / 32)
    assert wilcoxon([0.1]) == 1.0
