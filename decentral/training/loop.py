"""The training loop, the same over every driver: rounds, a clock that stops for evaluations, and no silent NaN."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm
from decentral.errors import DivergedError
from decentral.fused import warm_up
from decentral.peer import Peer
from decentral.training.objective import Objective
from decentral.transport.driver import Driver

Measure = Callable[[int, float, Mapping[int, Tensor], Mapping[int, Tensor]], None]
"""Called as measure(rounds completed, training seconds, models by node, losses by node); not on the training clock."""


@dataclass(frozen=True)
class Pace:
    """How long to train, and how often to evaluate: before the first round, after every so many, after the last."""

    rounds: int
    evaluate_every: int

    def is_due(self, round: int) -> bool:
        """Whether an evaluation follows this round."""
        return (round + 1) % self.evaluate_every == 0 or round + 1 == self.rounds


def train(
    algorithm: Algorithm,
    driver: Driver,
    peers: Mapping[int, Peer],
    objectives: Mapping[int, Objective],
    start: Tensor,
    pace: Pace,
    measure: Measure,
) -> dict[int, Tensor]:
    """Train the driver's nodes for some rounds.

    Args:
        peers: of each hosted node.
        objectives: of each hosted node.
        start: `(d,)`, the model that every node begins with.
        pace: how many rounds, and when `measure` is called.

    Returns:
        The final model `(d,)` of each hosted node.

    Raises:
        DivergedError: a node's loss is not finite.
        LostNeighborError: a neighbor died or stayed silent.
    """
    warm_up(start.dtype)
    states = {node: algorithm.init(start.clone(), peers[node]) for node in driver.hosted}
    models = {node: state.x for node, state in states.items()}
    seconds = 0.0
    unchecked = Unchecked(on_gpu=start.device.type == "cuda")
    measure(0, seconds, models, {})
    for round in range(pace.rounds):
        began = perf_counter()
        for node in driver.hosted:
            peers[node].round = round
            objectives[node].begin_step()
        losses = driver.advance({node: algorithm.step(states[node], peers[node]) for node in driver.hosted}, round)
        unchecked.add(round, losses)
        if pace.is_due(round):
            driver.settle()
            unchecked.check()
        seconds += perf_counter() - began
        if pace.is_due(round):
            measure(round + 1, seconds, models, losses)
    return models


@dataclass
class Unchecked:
    """Losses that nobody has looked at yet. A GPU is asked where it must be waited for anyway, not in every round."""

    on_gpu: bool
    _by_round: dict[int, Mapping[int, Tensor]] = field(default_factory=dict)

    def add(self, round: int, losses: Mapping[int, Tensor]) -> None:
        """Remember a round's losses by node; those in main memory are checked at once.

        Raises:
            DivergedError: one of them is not finite.
        """
        self._by_round[round] = losses
        if not self.on_gpu:
            self.check()

    def check(self) -> None:
        """Look at all of them, in the order of rounds.

        Raises:
            DivergedError: one is not finite; the first is named.
        """
        for round, losses in self._by_round.items():
            check_finite(losses, round)
        self._by_round.clear()


def check_finite(losses: Mapping[int, Tensor], round: int) -> None:
    """Raise DivergedError for the first node whose loss is not finite."""
    for node, loss in sorted(losses.items()):
        if not math.isfinite(value := loss.item()):
            raise DivergedError.at(node, round, value)
