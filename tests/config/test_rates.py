"""Learning rates by the number of the round: their shapes, their bounds, and that nothing else decides them."""

from typing import Any

import pytest

from decentral.config import Optimizer
from decentral.config.rates import needs_rounds
from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.methods import rate_words


def optimizer(schedule: Any) -> Optimizer:
    made: Optimizer = example_with(optimizer={"lr": 0.4, "schedule": schedule}).optimizer
    return made


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ({"name": "constant", "warmup": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        ({"name": "step", "at": [3, 8]}, [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"name": "step", "at": [2], "by": 0.5, "warmup": 2}, [0.5, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        ("linear", [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ({"name": "linear", "rounds": 4, "final": 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
        ({"name": "cosine", "rounds": 4}, [1, 0.8535534, 0.5, 0.1464466, 0, 0, 0, 0, 0, 0]),
        ({"name": "cosine", "rounds": 4, "final": 0.5}, [1, 0.9267767, 0.75, 0.5732233, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_factors(schedule: Any, expected: list[float]) -> None:
    rate = optimizer(schedule).schedule
    assert [rate.factor(round, rounds=10) for round in range(10)] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("cosin", "unknown name 'cosin'; did you mean 'cosine'?"),
        ({"name": "step"}, "at"),
        ({"name": "step", "at": [0]}, "found 0"),
        ({"name": "step", "at": [5], "by": 1.5}, "found 1.5"),
        ({"name": "cosine", "warmup": -1}, "found -1"),
        ({"name": "constant", "at": [5]}, "unknown key"),
    ],
)
def test_refusals(schedule: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        optimizer(schedule)
    assert told in f"{refused.value} {refused.value.at}"
    assert refused.value.at[:2] == ("optimizer", "schedule")


def test_which_depend_on_the_number_of_rounds() -> None:
    asked = ["constant", {"name": "step", "at": [3]}, "cosine", {"name": "linear", "rounds": 9}]
    assert [needs_rounds(optimizer(schedule).schedule) for schedule in asked] == [False, False, True, False]


def test_words_in_labels() -> None:
    assert rate_words(Optimizer()) == []
    assert rate_words(optimizer({"name": "constant", "warmup": 2})) == ["constant", "warmup=2"]
    assert rate_words(optimizer({"name": "step", "at": [2, 5]})) == ["step", "at=[2, 5]"]
