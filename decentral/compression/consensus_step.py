"""The consensus step gamma of compressed gossip, by a short search offline: CHOCO-Gossip on the run's own graph.

    q_i = C(x_i - h_i);    h_i += q_i;    x_i += gamma sum_j w_ij (h_j - h_i)

from normally distributed x and h = 0, with the run's compressor C and its mixing matrices W, turn by turn where there
is a schedule. Of 20 gammas from .001 to 1, evenly spaced in the logarithm, it is the one that leaves least of

    E = sum_i |x_i - xbar|^2 + |x_i - h_i|^2

Koloskova et al. 2019 (arXiv:1902.00340) tune theirs so. What their theorem guarantees is about 1000 times smaller.

The largest is tried first. One with which E grows large again is given up, and so is one that is clearly behind the
best so far after a quarter of the steps; the search ends once three in a row did no better. There are 1000 steps where
1 % is sent, down to 500 where more is, and on more than 64 nodes fewer, down to 250. On one core of a busy machine that
took 1.6 s for a ring of 16, 8 s for one of 64, 10 s for 256 and 40 s for 1000; a complete graph of 1000, with its
million weights, takes minutes. All is drawn from a fixed seed, so every process finds the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from decentral.compression import Named, compressor_of, section_of
from decentral.compression.compressor import Array, Compressor, Source, Space
from decentral.compression.exact import Exact
from decentral.compression.key import Key
from decentral.compression.sparse import Sparse
from decentral.compression.stand_in import SIZE, kept, stand_in
from decentral.errors import ConfigError
from decentral.topology.topology import Topology

GRID: tuple[float, ...] = tuple(np.logspace(-3, 0, 20).tolist())
PATIENCE = 3
"""Gammas in a row that do no better than the best, after which smaller ones are not tried."""
SENDINGS = 10
"""How often each number is sent in the steps of a search, in the mean."""
_FEWEST, _MOST = 500, 1000
"""Steps."""
LARGE, SIZE_ON_LARGE = 64, 400
"""Nodes from which on there are so many numbers, and in proportion fewer steps, but no fewer than 250."""
_CHECKED_EVERY = 25
_GROWN, _BEHIND = 3.0, 1.5
"""How many times its least, and how many times the best one's, E may be."""
_LITTLE = 0.1
"""Of the E at the start: less than that may come and go, as it does with sign."""
_ENOUGH = 1e-10
"""Of the E at the start: what float32 can still tell."""


class Trial(NamedTuple):
    """One gamma: the E that is left, as a share of that at the start, after every 25 steps."""

    gamma: float
    left: tuple[float, ...]
    given_up: str = ""  # why, in a word or two; empty for one that went to its end

    @property
    def steps(self) -> int:
        return _CHECKED_EVERY * len(self.left)

    @property
    def rate(self) -> float:
        """What a step leaves of E, the geometric mean of all; 1 of one that was given up."""
        return 1.0 if self.given_up else float(self.left[-1] ** (1 / self.steps))

    @property
    def outcome(self) -> str:
        return self.given_up or f"leaves {self.left[-1]:.1e} of the disagreement after {self.steps} steps"


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        gamma: the consensus step.
        trials: what was tried, from the largest gamma on.
        scale: what the gammas of the search are multiplied by; 1 unless it was one with a larger share.
    """

    gamma: float
    trials: tuple[Trial, ...]
    scale: float = 1.0

    def __str__(self) -> str:
        """Why this one, in a few words."""
        best = min(self.trials, key=lambda trial: trial.rate)
        above = [trial for trial in self.trials if trial.gamma > best.gamma]
        larger = f", {above[-1].gamma:.3g} {above[-1].outcome}" if above else ""
        scaled = f"; times {self.scale:.3g} for the share that is sent of the whole model" if self.scale != 1 else ""
        return f"of {len(self.trials)} that were tried {best.gamma:.3g} {best.outcome}{larger}{scaled}"


def search(graph: Topology, compression: Named, space: Space) -> Search:
    """The consensus step for a compressor on a graph.

    Args:
        graph: of the nodes.
        compression: of what they send.
        space: of the model's vectors; it is searched in a smaller one (`stand_in`).

    Raises:
        ConfigError: no gamma brings the nodes together, or the compressor may lose more than there is.
    """
    section = section_of(compression)
    smaller = stand_in(section, space, SIZE if graph.nodes <= LARGE else SIZE_ON_LARGE)
    compressor = compressor_of(smaller.section, smaller.space)
    gossip = _Gossip(graph, compressor, steps_for(kept(compressor), graph.nodes))
    trials = tuple(_tried(gossip))
    best = min(trials, key=lambda trial: trial.rate)
    if best.rate >= 1:
        raise ConfigError(
            f"no consensus step from {GRID[0]:g} to {GRID[-1]:g} brings the nodes of {graph.name} together with "
            f"{section.name}; send more, or set consensus_step",
            section.path or None,
        )
    return Search(best.gamma * smaller.scale, trials, smaller.scale)


def steps_for(share: float, nodes: int) -> int:
    """How many steps each gamma has at most, for the share of the numbers that a message keeps."""
    steps = min(max(int(SENDINGS / share), _FEWEST), _MOST)
    return min(steps, max(250, _MOST * LARGE // nodes))


def _tried(gossip: "_Gossip") -> Iterator[Trial]:
    best, since = Trial(0.0, (1.0,)), 0
    for gamma in reversed(GRID):
        yield (trial := gossip.trial(gamma, best))
        if trial.rate < best.rate:
            best, since = trial, 0
        elif best.gamma:
            since += 1
        if since == PATIENCE:
            return


class _Gossip:
    """CHOCO-Gossip of all nodes at once: what a message decodes to is what encoding adds to h, so none is decoded."""

    def __init__(self, graph: Topology, compressor: Compressor, steps: int) -> None:
        self._compressor, self._number, self._steps = compressor, compressor.space.number, steps
        self._nodes = graph.nodes
        turns = min(graph.schedule.period or steps, steps)
        self._mixings = [_operator(graph.schedule.matrix(turn).sparse, self._number) for turn in range(turns)]
        drawn = np.random.default_rng(0).standard_normal((graph.nodes, compressor.space.size))
        self._starts = drawn.astype(self._number)
        self._message = np.empty(compressor.bytes, np.uint8)

    def trial(self, gamma: float, best: Trial) -> Trial:
        """One gamma, until it is found to do worse than the best one."""
        x, h = self._starts.copy(), np.zeros_like(self._starts)
        nodes = [Source(x[i], h[i], h[i], self._number(1)) for i in range(self._nodes)]
        memories = [self._compressor.memory(Key(0, 0, i)) for i in range(self._nodes)]
        first, left = _error(x, h), [1.0]
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(self._steps):
                unfit = sum(self._send(node, Key(0, step, i), memories[i]) for i, node in enumerate(nodes))
                x += self._number(gamma) * (self._mixings[step % len(self._mixings)] @ h - h)
                if (step + 1) % _CHECKED_EVERY == 0 or unfit:
                    left.append(_error(x, h) / first)
                    if unfit or not left[-1] <= max(_LITTLE, _GROWN * min(left)):
                        return Trial(gamma, tuple(left[1:]), "diverges")
                    if self._is_behind(left[1:], best):
                        return Trial(gamma, tuple(left[1:]), f"is behind after {step + 1} steps")
                    if left[-1] < _ENOUGH:
                        break
        return Trial(gamma, tuple(left[1:]))

    def _is_behind(self, left: Sequence[float], best: Trial) -> bool:
        if not best.gamma or 4 * _CHECKED_EVERY * len(left) < self._steps:
            return False
        return len(left) > len(best.left) or left[-1] > _BEHIND * best.left[len(left) - 1]

    def _send(self, node: Source, key: Key, memory: Tensor | None) -> int:
        """h += C(x - h); returns how many numbers cannot be sent."""
        compressor = self._compressor
        if isinstance(compressor, Sparse) and isinstance(compressor.values, Exact) and not compressor.unbiased:
            chosen = compressor.choice.choose(node, key)  # the same without a message, in half the time
            node.target[chosen.indices] += chosen.values
            return chosen.unfit
        return compressor._encode(node, self._message, key, memory)


def _error(x: Array, h: Array) -> float:
    """E"""
    apart, behind = x - x.mean(axis=0), x - h
    return float(np.vdot(apart, apart)) + float(np.vdot(behind, behind))


def _operator(W: Any, number: Any) -> Any:
    """W as what multiplies faster: dense where it is filled."""
    return (W.toarray() if W.nnz > W.shape[0] ** 2 // 8 else W).astype(number)
