"""Copies of the nodes of a free run, kept on the way and evaluated together, row by row.

A simulator hosts all nodes, and evaluates a row as soon as it has the last of them; processes evaluate together when
nothing else is under way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.asynchronous import OLDEST
from decentral.peer import Peer
from decentral.training.loop import Measure
from decentral.training.objective import Objective
from decentral.transport.driver import Driver


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
    newest: dict[int, int] = field(default_factory=dict)  # the row that each node has kept last
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
        self.newest[node] = row
        if len(self._rows[row]) == peer.nodes:  # a simulator's
            self._measure(self._rows.pop(row))

    def measure_until(self, last: int) -> None:
        """Evaluate all rows until the last that all nodes, of other processes too, have kept."""
        for row in sorted(row for row in self._rows if row <= last):
            self._measure(self._rows.pop(row))

    def kept_of(self, node: int) -> dict[int, Kept]:
        """A node's copies that are still to be evaluated, by row."""
        return {row: kept[node] for row, kept in sorted(self._rows.items()) if node in kept}

    def put_back(self, node: int, kept: Mapping[int, Kept]) -> None:
        """A node's copies, as `kept_of` told them."""
        for row, copy in kept.items():
            self._rows.setdefault(row, {})[node] = copy

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
