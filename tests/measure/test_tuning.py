"""Which learning rate wins, and what is said of it."""

import pytest

from decentral.measure.comparison import Candidate
from decentral.measure.tuning import choose


def tried(lr: float, accuracy: float | None, loss: float | None = 1.0, *, died: bool = False) -> Candidate:
    return Candidate(lr=lr, accuracy=accuracy, loss=loss, failure="node 0 diverged in round 2" if died else None)


@pytest.mark.parametrize(
    ("candidates", "lr", "edge"),
    [
        ([tried(1, 0.5, 0.1), tried(2, 0.9, 0.9), tried(3, 0.8, 0.2)], 2, None),
        ([tried(1, 0.9, 0.3), tried(2, 0.9, 0.2), tried(3, 0.1)], 2, None),  # a tie goes to the lower loss
        ([tried(1, 0.9, 0.3), tried(2, 0.9, 0.3)], 1, "lowest"),  # a tie of both to the lower rate
        ([tried(1, 0.5), tried(2, 0.6)], 2, "highest"),
        ([tried(1, 0.1), tried(2, None, None, died=True)], 1, "lowest"),
        ([tried(1, None, None, died=True), tried(2, None, None)], 2, "highest"),  # not finite, yet it went through
        ([tried(1, None, None, died=True), tried(2, None, None, died=True)], 1, "lowest"),
        ([tried(1, None, 0.3), tried(2, None, 0.2), tried(3, None, None)], 2, None),  # regression
    ],
)
def test_the_best_on_the_samples_set_aside(candidates: list[Candidate], lr: float, edge: str | None) -> None:
    tuning = choose(candidates)
    assert (tuning.lr, tuning.edge) == (lr, edge)
    assert tuning.candidates == candidates
