"""Numbers of two records of a run are compared; what the first version lacks is not."""

from __future__ import annotations

from typing import Any

from statsmerging.runs.comparison import result_differences
from statsmerging.runs.results import RunResults


def results(**row: Any) -> RunResults:
    numbers = {"accuracy": {"mnist": 0.5}, "average": 0.5}
    about = {"suite": "toy", "backbone": "vit", "seed": 0, "stamps": []}
    return RunResults.model_validate({**about, "methods": {"free": {**numbers, **row}}})


def moved(largest: float) -> dict[str, Any]:
    return {"movement": {"vectors": {"largest_coefficient": largest, "relative": 0.5}}}


def test_movement_is_compared_where_both_records_have_it() -> None:
    assert result_differences(results(**moved(2.0)), results(**moved(2.0))) == []
    (found,) = result_differences(results(**moved(2.0)), results(**moved(3.0)))
    assert found.name == "methods.free.movement.vectors.largest_coefficient"
    assert found.size == 1.0


def test_movement_that_an_earlier_version_did_not_record_is_no_difference() -> None:
    assert result_differences(results(), results(**moved(2.0))) == []


def test_parameters_that_an_earlier_version_did_not_record_are_no_difference() -> None:
    before = results(parameters={"scale": 1.0})
    assert result_differences(before, results(parameters={"scale": 1.0, "new": 2.0})) == []
    (found,) = result_differences(before, results(parameters={"scale": 2.0, "new": 2.0}))
    assert found.name == "methods.free.parameters.scale"


def with_cost(images: int, seconds: float) -> RunResults:
    counts = {"images": images, "forward_passes": 8, "backward_passes": 0, "parameters": 2}
    measured = {"free": {"seconds": {"learning": seconds}, "memory": {"learning": 5}}}
    content = results(cost=counts).as_json()
    return RunResults.model_validate({**content, "measured": measured})


def test_counts_are_compared_and_measurements_are_not() -> None:
    assert result_differences(with_cost(4, 1.0), with_cost(4, 2.0)) == []
    (found,) = result_differences(with_cost(4, 1.0), with_cost(5, 1.0))
    assert found.name == "methods.free.cost.images"
    assert found.size == 1


def test_a_cost_that_an_earlier_version_did_not_record_is_no_difference() -> None:
    assert result_differences(results(), with_cost(4, 1.0)) == []


def test_kinds_of_layers_of_a_later_version_are_kept() -> None:
    later = {"movement": {"embeddings": {"largest_coefficient": 1.0, "rank": 3}}}
    assert results(**later).as_json()["methods"]["free"]["movement"] == later["movement"]
