"""What holds for every method of this project, found by being a file, and for one of a user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import (
    DataFreeMethod,
    Method,
    check_method,
    method_named,
    methods,
    parameter,
)
from statsmerging.merging.methods.checks import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", methods())
def test_every_method(name: str, check: Callable[[Method], None]) -> None:
    check(method_named(name))


@pytest.fixture
def no_registration_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statsmerging.merging.methods.base._REGISTRY", methods())


@pytest.mark.usefixtures("no_registration_remains")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("none", None),
        ("order", "order of the experts"),
        ("random", "leave torch's global random numbers alone"),
        ("bank", "leave the bank's"),
        ("missing", "all tensors and no others"),
        ("scale", "be linear in scale"),
        ("precision", "keep shape and type of linear"),
        ("claim", "give an expert back"),
    ],
)
def test_a_method_of_a_user_is_checked(fault: str, message: str | None) -> None:
    @dataclass(frozen=True)
    class Faulty(DataFreeMethod):
        name = "faulty"
        title = "Faulty"
        scale: float = parameter(0.3, at_least=0)

        @classmethod
        def recovering(cls, copies: int) -> dict[str, object] | None:
            if fault == "scale":
                return None
            return {"scale": 1.0 if fault == "claim" else 1 / copies}

        def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
            state = {}
            for layer, start in bank.pretrained.items():
                rows = bank.vectors[layer].float()
                update = self.scale * rows.sum(dim=0)
                if fault == "order":
                    update = self.scale * rows[0]
                if fault == "random":
                    update = update + 1e-3 * self.scale * torch.randn(update.shape)
                if fault == "scale":
                    update = self.scale * update
                if fault == "bank":
                    bank.vectors[layer].mul_(2)
                merged = start.float() + update.view(start.shape)
                state[layer] = merged.double() if fault == "precision" else merged.to(start.dtype)
            return state if fault == "missing" else {**bank.kept, **state}

    if message is None:
        check_method(Faulty())
    else:
        with pytest.raises(MergingError, match=f"method faulty: it must .*{message}"):
            check_method(Faulty())


def test_a_class_in_place_of_an_instance_is_pointed_out() -> None:
    with pytest.raises(MergingError, match=r"give check_method an instance: Ties\(\)"):
        check_method(type(method_named("ties")))  # type: ignore[arg-type]
