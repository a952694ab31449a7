"""The training loop, the same over every driver: rounds, a clock that stops for evaluations, and no silent NaN."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import DivergedError
from decentral.fused import warm_up
from decentral.peer import Peer
from decentral.training.checkpoint import Snapshot, capture, restore
from decentral.training.objective import Objective
from decentral.transport.driver import Driver

Measure = Callable[..., None]
"""Called as measure(rounds completed, training seconds, models by node, losses by node), and where the averaged model
is another than the mean of these, with what each node adds to it and its weight; with `notes` of methods that have
some; not on the training clock."""

Boundary = Callable[[int, Callable[[], dict[int, Snapshot]]], None]
"""Called as boundary(rounds completed, what takes a snapshot of each hosted node) before each round and after the last;
not on the training clock. It may end the run by an exception."""


Conclude = Callable[[Mapping[int, State]], dict[str, Any]]
"""Called as conclude(states by node) after the last round, with what `measure` is called with besides; all nodes call
it together."""


@dataclass(frozen=True)
class Pace:
    """How long to train, and how often to evaluate: before the first round, after every so many, after the last."""

    rounds: int
    evaluate_every: int
    duration_s: float | None = None  # of a free run
    evaluate_every_s: float | None = None

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
    boundary: Boundary,
    saved: Mapping[int, Snapshot] | None = None,
    conclude: Conclude | None = None,
) -> dict[int, Tensor]:
    """Train the driver's nodes for some rounds.

    Args:
        peers: of each hosted node.
        objectives: of each hosted node.
        start: `(d,)`, the model that every node begins with.
        pace: how many rounds, and when `measure` is called.
        boundary: is called between rounds.
        saved: of each hosted node, where to go on; from the beginning unless given.
        conclude: is called before the last evaluation.

    Returns:
        The final model `(d,)` of each hosted node.

    Raises:
        ConfigError: `saved` is of another model or another program.
        DivergedError: a node's loss is not finite.
        LostNeighborError: a neighbor died or stayed silent.
    """
    warm_up(start.dtype)
    states = {node: algorithm.init(start.clone(), peers[node]) for node in driver.hosted}
    models = {node: state.x for node, state in states.items()}
    completed, seconds = _resumed(saved, states, objectives, driver) if saved else (0, 0.0)
    unchecked = Unchecked(on_gpu=start.device.type == "cuda")

    def snapshots() -> dict[int, Snapshot]:
        sent = driver.bytes_sent
        return {n: capture(states[n], objectives[n], completed, seconds, sent[n]) for n in driver.hosted}

    def evaluate(losses: Mapping[int, Tensor]) -> None:
        concluded = conclude(states) if conclude is not None and completed == pace.rounds else {}
        shares = {n: share for n in driver.hosted if (share := algorithm.share(states[n], peers[n])) is not None}
        notes = algorithm.notes(states[driver.hosted[0]])
        more = ({"notes": notes} if notes else {}) | concluded
        measure(completed, seconds, models, losses, *([shares] if shares else []), **more)

    if not saved:
        evaluate({})
    for round in range(completed, pace.rounds):
        boundary(round, snapshots)
        began = driver.clock()
        for node in driver.hosted:
            peers[node].round = round
            states[node].local.begin_round(round)
            objectives[node].begin_step()
        losses = driver.advance({node: algorithm.step(states[node], peers[node]) for node in driver.hosted}, round)
        unchecked.add(round, losses)
        if pace.is_due(round):
            driver.settle()
            unchecked.check()
        seconds += driver.clock() - began
        completed = round + 1
        if pace.is_due(round):
            evaluate(losses)
    boundary(pace.rounds, snapshots)
    return models


def _resumed(
    saved: Mapping[int, Snapshot], states: Mapping[int, State], objectives: Mapping[int, Objective], driver: Driver
) -> tuple[int, float]:
    """Put the hosted nodes back where they were; the rounds completed, and the training seconds until then."""
    for node, state in states.items():
        restore(saved[node], state, objectives[node])
        driver.bytes_sent[node] = saved[node].bytes_sent
    first = saved[driver.hosted[0]]
    return first.round, max(saved[node].seconds for node in driver.hosted)


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
