"""Which value of a grid is chosen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statsmerging.choices import TuningRule
from statsmerging.learning.tuning import at_edge, chosen, leaders

RULES: tuple[TuningRule, ...] = ("agreement", "leave_one_task_out")


def test_agreement_over_all_tasks_chooses() -> None:
    tried = [{"mnist": 0.5, "svhn": 0.5}, {"mnist": 0.9, "svhn": 0.3}, {"mnist": 0.4, "svhn": 0.5}]
    assert chosen("agreement", tried) == 1


def test_one_task_cannot_decide_alone_where_each_is_left_out() -> None:
    """The second value is 0.5 above on one task and 0.1 below on the three others."""
    tried = [
        {"mnist": 0.1, "svhn": 0.8, "cars": 0.8, "dtd": 0.8},
        {"mnist": 0.6, "svhn": 0.7, "cars": 0.7, "dtd": 0.7},
    ]
    assert chosen("agreement", tried) == 1
    # Without mnist the first leads, without any other task the second.
    assert leaders("leave_one_task_out", tried) == [0, 1, 1, 1]
    assert chosen("leave_one_task_out", tried) == 1
    nearly = [tried[0], {"mnist": 0.29, "svhn": 0.7, "cars": 0.7, "dtd": 0.7}]
    assert leaders("leave_one_task_out", nearly) == [0, 0, 0, 0]


def test_what_leads_most_often_is_chosen_though_another_agrees_more() -> None:
    tried = [
        {"mnist": 1.0, "svhn": 0.0, "cars": 0.55},
        {"mnist": 0.4, "svhn": 0.5, "cars": 0.6},
    ]
    # All: 0.517 and 0.5. Without mnist 0.275 and 0.55, svhn 0.775 and 0.5, cars 0.5 and 0.45.
    assert chosen("agreement", tried) == 0
    assert leaders("leave_one_task_out", tried) == [1, 0, 0]
    more = [*tried, {"mnist": 0.9, "svhn": 0.3, "cars": 0.2}]  # leads where cars is left out
    assert leaders("leave_one_task_out", more) == [1, 0, 2]
    assert chosen("leave_one_task_out", more) == 0  # once each, and it agrees most


@pytest.mark.parametrize("rule", RULES)
def test_of_equal_values_the_first_is_chosen(rule: TuningRule) -> None:
    assert chosen(rule, [{"mnist": 0.2}, {"mnist": 0.7}, {"mnist": 0.7}]) == 1


@pytest.mark.parametrize("rule", RULES)
def test_a_model_that_diverged_is_never_chosen(rule: TuningRule) -> None:
    assert chosen(rule, [{}, {"mnist": 0.0}, {}]) == 1
    assert chosen(rule, [{}, {}]) is None
    assert chosen(rule, []) is None


@given(
    st.sampled_from(RULES),
    st.lists(
        st.fixed_dictionaries({task: st.floats(0, 1) for task in ("mnist", "svhn", "cars")}),
        min_size=1,
        max_size=8,
    ),
)
@settings(deadline=None)
def test_the_chosen_value_led_from_its_trial_on(
    rule: TuningRule, tried: list[dict[str, float]]
) -> None:
    """So models that do not lead need not be held."""
    number = chosen(rule, tried)
    assert number is not None
    for seen in range(number + 1, len(tried) + 1):
        assert number in leaders(rule, tried[:seen])


@pytest.mark.parametrize(
    ("value", "grid", "lowest", "highest", "edge"),
    [
        (0.1, [0.1, 0.5, 1.0], 0.0, 9.0, True),
        (0.5, [0.1, 0.5, 1.0], 0.0, 9.0, False),
        (1.0, [1.0, 0.5, 0.1], 0.0, 9.0, True),
        (1.0, [0.1, 0.5, 1.0], 0.0, 1.0, False),  # no share is above 1
        (0.0, [0.0, 0.5, 1.0], 0.0, 9.0, False),
        (1e-3, [1e-3, 1e-2], 0.0, 9.0, True),  # 1e-3 − 9e-3 is none, half of 1e-3 is one
        (0.3, [0.3], 0.0, 9.0, False),  # nothing was compared
    ],
)
def test_the_edge_of_a_grid_has_valid_values_beyond_it(
    value: float, grid: list[float], lowest: float, highest: float, edge: bool
) -> None:
    assert at_edge(value, grid, lambda other: lowest <= other <= highest) is edge
