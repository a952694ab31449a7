"""The training loop of asynchronous methods: each node steps at its own pace, and nobody is stopped for evaluations.

A free run lasts for a time, by the driver's clock, or until each node has made so many steps; who has made them goes on
answering the others. Evaluations bring all nodes together, so they follow the run: at the times when they are due, or
after so many of its own steps, each node keeps a copy of its model, and those that belong together are evaluated
together. A simulator hosts all nodes, and evaluates as soon as it has the last of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import NamedTuple

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.asynchronous import OLDEST
from decentral.fused import warm_up
from decentral.peer import Peer
from decentral.training.loop import Measure, Pace, check_finite
from decentral.training.objective import Objective
from decentral.transport.driver import Driver, FreeRun, Step
from decentral.transport.frames import HEADER_BYTES


class FreeSteps(NamedTuple):
    """How far all nodes have come, by node."""

    steps: list[int]
    staleness: list[list[int]]
    seconds: list[float]


@dataclass(frozen=True)
class Kept:
    """A copy of one node."""

    x: Tensor  # (d,)
    share: tuple[Tensor, float] | None
    buffers: tuple[Tensor, ...]
    loss: Tensor | None  # of its last step
    steps: int
    seconds: float
    bytes_sent: int
    staleness: list[int]


def train_freely(
    algorithm: Algorithm,
    driver: Driver,
    peers: Mapping[int, Peer],
    objectives: Mapping[int, Objective],
    start: Tensor,
    pace: Pace,
    measure: Measure,
) -> dict[int, Tensor]:
    """Train the driver's nodes, each at its own pace.

    Args:
        peers: of each hosted node; their `round` is the node's own step.
        objectives: of each hosted node.
        start: `(d,)`, the model that every node begins with.
        pace: how long, and how often models are kept for `measure`, which is called with the mean number of steps.

    Returns:
        The final model `(d,)` of each hosted node.

    Raises:
        DivergedError: a node's loss is not finite.
    """
    for dtype in {start.dtype, torch.float64}:  # sums of weights
        warm_up(dtype)
    states = {node: algorithm.init(start.clone(), peers[node]) for node in driver.hosted}
    albums = Albums(algorithm, driver, peers, objectives, states, measure)
    albums.keep_all(0, dict.fromkeys(driver.hosted, 0.0))
    run = Running(algorithm, peers, objectives, states, pace, albums)
    driver.run_free(run)
    albums.keep_all(run.last_row, {node: run.ended_s(node) for node in driver.hosted})
    albums.measure_all()
    return {node: state.x for node, state in states.items()}


@dataclass
class Albums:
    """The copies that are kept of the hosted nodes, by row of evaluations."""

    algorithm: Algorithm
    driver: Driver
    peers: Mapping[int, Peer]
    objectives: Mapping[int, Objective]
    states: Mapping[int, State]
    measure: Measure
    steps: dict[int, int] = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)
    _rows: dict[int, dict[int, Kept]] = field(default_factory=dict)

    def keep_all(self, row: int, seconds: Mapping[int, float]) -> None:
        """Keep copies of all hosted nodes."""
        for node in self.driver.hosted:
            self.keep(row, node, seconds[node])

    def keep(self, row: int, node: int, seconds: float) -> None:
        """Keep a copy of a node for one row."""
        state, peer = self.states[node], self.peers[node]
        share = self.algorithm.share(state, peer)
        self._rows.setdefault(row, {})[node] = Kept(
            x=state.x.clone(),
            share=None if share is None else (share[0].clone(), share[1]),
            buffers=tuple(buffer.clone() for buffer in self.objectives[node].module.buffers()),
            loss=self.losses.get(node),
            steps=self.steps.get(node, 0),
            seconds=seconds,
            bytes_sent=self.driver.bytes_sent[node],
            staleness=self.algorithm.staleness(state),
        )
        if len(self._rows[row]) == peer.nodes:  # a simulator's
            self._measure(self._rows.pop(row))

    def measure_all(self) -> None:
        """Evaluate all that is kept; all processes have kept the same rows."""
        for row in sorted(self._rows):
            self._measure(self._rows.pop(row))

    def _measure(self, kept: Mapping[int, Kept]) -> None:
        sent = dict(self.driver.bytes_sent)
        buffers = {node: self._exchanged(node, one.buffers) for node, one in kept.items()}
        self.driver.bytes_sent.update({node: one.bytes_sent for node, one in kept.items()})
        came = self._together(kept)
        shares = {node: one.share for node, one in kept.items() if one.share is not None}
        self.measure(
            round(sum(came.steps) / len(came.steps)),
            max(one.seconds for one in kept.values()),
            {node: one.x for node, one in kept.items()},
            {node: one.loss for node, one in kept.items() if one.loss is not None},
            *([shares] if shares else []),
            free=came,
        )
        self.driver.bytes_sent.update(sent)
        for node, before in buffers.items():
            self._exchanged(node, before)

    def _together(self, kept: Mapping[int, Kept]) -> FreeSteps:
        """How far all nodes had come, those of other processes too."""
        padded = {
            node: [one.seconds, one.steps, *one.staleness, *[0.0] * (OLDEST - len(one.staleness))]
            for node, one in kept.items()
        }
        rows = self.driver.gather(padded)
        histograms = [_trimmed([int(count) for count in row[2:]]) for row in rows]
        return FreeSteps([int(row[1]) for row in rows], histograms, [row[0] for row in rows])

    def _exchanged(self, node: int, buffers: Sequence[Tensor]) -> list[Tensor]:
        """Put a module's buffers in place; those that were there."""
        own = list(self.objectives[node].module.buffers())
        before = [buffer.clone() for buffer in own]
        for buffer, wanted in zip(own, buffers, strict=True):
            buffer.copy_(wanted)
        return before


def _trimmed(histogram: list[int]) -> list[int]:
    last = max((age for age, count in enumerate(histogram) if count), default=-1)
    return histogram[: last + 1]


class Running(FreeRun):
    """The steps of the hosted nodes, and when copies of them are kept."""

    def __init__(
        self,
        algorithm: Algorithm,
        peers: Mapping[int, Peer],
        objectives: Mapping[int, Objective],
        states: Mapping[int, State],
        pace: Pace,
        albums: Albums,
    ) -> None:
        self._algorithm, self._peers, self._objectives, self._states = algorithm, peers, objectives, states
        self._pace, self._albums = pace, albums
        self._steps = albums.steps
        self._steps.update(dict.fromkeys(states, 0))
        self._ended_s = dict.fromkeys(states, 0.0)
        self._looks = 0

    @property
    def is_timed(self) -> bool:
        return self._pace.duration_s is not None

    @property
    def over_s(self) -> float:
        return inf if self._pace.duration_s is None else self._pace.duration_s

    @property
    def last_row(self) -> int:
        """The row of what is kept after the run: the same in all processes, whatever their nodes have done."""
        if self._pace.duration_s is None:
            return -(-self._pace.rounds // self._pace.evaluate_every)
        return ceil(self._pace.duration_s / self._every_s() - 1e-9)

    def ended_s(self, node: int) -> float:
        """When a node's last step ended, or the time was over."""
        return max(self._ended_s[node], self._pace.duration_s or 0.0)

    def begin(self, node: int, now_s: float) -> Step | None:
        made, pace = self._steps[node], self._pace
        if now_s >= pace.duration_s if pace.duration_s is not None else made >= pace.rounds:
            return None
        self._peers[node].round = made
        self._states[node].local.begin_round(made)
        self._objectives[node].begin_step()
        return self._algorithm.step(self._states[node], self._peers[node])

    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        check_finite({node: loss}, self._steps[node])
        self._steps[node] += 1
        self._ended_s[node] = now_s
        self._albums.losses[node] = loss
        row, rest = divmod(self._steps[node], self._pace.evaluate_every)
        if not self.is_timed and not rest and row < self.last_row:
            self._albums.keep(row, node, now_s)

    def serve(self, node: int) -> Step:
        return self._algorithm.serve(self._states[node], self._peers[node])

    def look_s(self) -> float:
        if self._pace.duration_s is None or self._looks + 1 >= self.last_row:
            return inf
        return (self._looks + 1) * self._every_s()

    def look(self, now_s: float) -> None:
        self._looks += 1
        self._albums.keep_all(self._looks, dict.fromkeys(self._states, now_s))

    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:  # noqa: ARG002
        sources = self._peers[node].row().sources
        if not sources:
            return None
        neighbor = max(sources, key=self._steps.__getitem__)
        x = self._states[node].x.copy_(self._states[neighbor].x)
        return neighbor, HEADER_BYTES + x.nbytes

    def _every_s(self) -> float:
        assert self._pace.duration_s is not None
        return self._pace.evaluate_every_s or self._pace.duration_s / 20
