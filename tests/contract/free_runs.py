"""Run an asynchronous method in virtual time, with nothing of the training loop but the steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.asynchronous import Asynchronous
from decentral.peer import Peer
from decentral.topology.topology import Topology
from decentral.transport.clock import EventLog, FreeInTime, VirtualTime, Wire
from decentral.transport.driver import FreeRun, GradientAt, Step
from tests.contract.oracle import Matrix
from tests.contract.problems import LAYOUTS
from tests.contract.runs import peer_at


def even(nodes: int, gradient_s: float = 1.0) -> VirtualTime:
    """All are equally fast, and nothing takes time on the wire."""
    return VirtualTime([gradient_s] * nodes, lambda i, j: Wire())


@dataclass
class Steps(FreeRun):
    """Each node makes so many steps, or as many as it begins in a time.

    Attributes:
        models: of each node, before its first step and after each.
        seconds: when each of them ended.
    """

    algorithm: Asynchronous
    peers: list[Peer]
    states: list[Any]
    rounds: int | None
    duration_s: float
    models: list[list[Tensor]] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)

    def begin(self, node: int, now_s: float) -> Step | None:
        made = len(self.seconds[node])
        if now_s >= self.duration_s or made == self.rounds:
            return None
        self.peers[node].round = made
        self.states[node].local.begin_round(made)
        return self.algorithm.step(self.states[node], self.peers[node])

    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        assert loss.shape == ()
        self.models[node].append(self.states[node].x.clone())
        self.seconds[node].append(now_s)

    def serve(self, node: int) -> Step:
        return self.algorithm.serve(self.states[node], self.peers[node])

    def look_s(self) -> float:
        return inf

    def look(self, now_s: float) -> None:
        raise AssertionError("nobody asked for it")

    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:
        neighbor = self.peers[node].row().sources[0]
        self.states[node].x.copy_(self.states[neighbor].x)
        return neighbor, self.states[node].x.nbytes

    @property
    def is_timed(self) -> bool:
        return self.rounds is None

    @property
    def final(self) -> Matrix:
        """(n, d) after the run."""
        return torch.stack([state.x for state in self.states]).double().numpy()

    @property
    def made(self) -> list[int]:
        """Steps, by node."""
        return [len(seconds) for seconds in self.seconds]

    def after(self, steps: int) -> Matrix:
        """(n, d) of each node after so many steps of its own."""
        return torch.stack([models[steps] for models in self.models]).double().numpy()


def play_freely(
    algorithm: Asynchronous,
    topology: Topology,
    gradients: Sequence[GradientAt],
    starts: Matrix,
    time: VirtualTime,
    *,
    rounds: int | None = None,
    duration_s: float = inf,
    starving: int = 1000,
) -> tuple[Steps, FreeInTime]:
    """Run all nodes, node i from row i of `starts: (n, d)`."""
    algorithm = algorithm.on(topology)
    peers = [peer_at(topology, node, LAYOUTS["one block"]) for node in range(topology.nodes)]
    states = [algorithm.init(torch.from_numpy(np.array(starts[peer.node])), peer) for peer in peers]
    run = Steps(algorithm, peers, states, rounds, duration_s)
    run.models, run.seconds = [[state.x.clone()] for state in states], [[] for _ in states]
    driver = FreeInTime(gradients, time, starving)
    driver.run_free(run)
    return run, driver


def logged(time: VirtualTime) -> tuple[VirtualTime, StringIO]:
    """The same time, and what it writes of the run's events."""
    text = StringIO()
    time.log = EventLog(text)
    time.log.begin(len(time.gradient_s))
    return time, text
