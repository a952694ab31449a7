"""Walks of a token over a graph: who is next, by what the node that holds the token knows.

The Markov kernels have a stationary law mu that they reach from anywhere:

    simple            P_ij = 1 / deg_i                                        mu_i ~ deg_i
    weighted          P_ij = w_ij / s_i, s_i = sum_k w_ik                     mu_i ~ s_i, or any by acceptance
    metropolis        P_ij = min(1, (mu_j / deg_j) / (mu_i / deg_i)) / deg_i  any mu > 0    (Metropolis-Hastings)
    non-backtracking  as simple, but never straight back                      mu_i ~ deg_i

Two more are repelled by where the walk has been, x being the visits of each node, up to a factor:

    srrw  K_ij[x] ~ P_ij (x_j / mu_j)^-alpha            (Doshi, Hu and Eun 2023, arXiv:2305.05097)
    hdt   metropolis with mu_i (x_i / mu_i)^-alpha for mu  (Hu, Ma and Eun 2025, arXiv:2505.18300)

P of srrw, and hdt at alpha = 0, are the metropolis kernel; with alpha = 0 both walk its very paths. Their visits
approach mu too, with less variance (see `walk_analysis`).

What a hop needs besides constants of the node and its neighbors is `Walk.asks`. The counts x travel with the token
(n numbers in each message, no questions asked), or each node keeps its own, and the holder asks: srrw all neighbors
before each hop, hdt only the one that it proposes.
A path is a function of (seed, token, visit) through `uniform`, the same in every process and driver.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Literal

import numpy as np

from decentral.errors import ConfigError, nearest
from decentral.seeding import integer_seed
from decentral.topology import hops
from decentral.topology.hops import Floats, Integers

Asks = Literal["nothing", "previous node", "neighbors' counts", "proposed node's count"]


@dataclass(frozen=True)
class Kernel:
    """How a walk hops: the `kind` of `hops.hop`, what it asks, and whether it can be corrected to any target."""

    kind: int
    asks: Asks
    any_target: bool
    natural: Literal["uniform", "degree"]
    """The target unless another is given."""


KERNELS: dict[str, Kernel] = {
    "simple": Kernel(hops.MARKOV, "nothing", any_target=False, natural="degree"),
    "weighted": Kernel(hops.MARKOV, "nothing", any_target=True, natural="degree"),
    "metropolis": Kernel(hops.MARKOV, "nothing", any_target=True, natural="uniform"),
    "non-backtracking": Kernel(hops.NON_BACKTRACKING, "previous node", any_target=False, natural="degree"),
    "srrw": Kernel(hops.SELF_REPELLENT, "neighbors' counts", any_target=True, natural="uniform"),
    "hdt": Kernel(hops.HISTORY_DRIVEN, "proposed node's count", any_target=True, natural="uniform"),
}


@dataclass(frozen=True)
class Walk:
    """A walk, on whatever graph.

    Args:
        kernel: one of `KERNELS`.
        alpha: how strongly visits repel; srrw and hdt only, 0 or more. 1 is safe, 5 to 10 are usual.
        fake_visits: what the counts begin with: so many visits at a node of mean target, more than 0.

    Raises:
        ConfigError: unknown kernel, or a number out of bounds.
    """

    kernel: str
    alpha: float = 0.0
    fake_visits: float = 1.0

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ConfigError(f"unknown kernel {self.kernel!r}{nearest(self.kernel, KERNELS)}")
        if not (isfinite(self.alpha) and self.alpha >= 0):
            raise ConfigError(f"alpha is {self.alpha:g}; required: a finite number, 0 or more")
        if self.alpha and not self.remembers:
            raise ConfigError(
                f"kernel {self.kernel} has no memory of visits, found alpha {self.alpha:g}; leave alpha out, or use "
                "kernel srrw or hdt"
            )
        if not (isfinite(self.fake_visits) and self.fake_visits > 0):
            raise ConfigError(f"fake_visits is {self.fake_visits:g}; required: a finite number above 0")

    @property
    def remembers(self) -> bool:
        """Whether the next hop depends on the counts."""
        return KERNELS[self.kernel].kind in (hops.SELF_REPELLENT, hops.HISTORY_DRIVEN)

    @property
    def asks(self) -> Asks:
        """What a hop needs to be told, besides what its node has known from the start."""
        return KERNELS[self.kernel].asks

    @property
    def base(self) -> "Walk":
        """The walk without its memory."""
        return Walk("metropolis", fake_visits=self.fake_visits) if self.remembers else self


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A walk, with what one node knows for good: constants of itself and its neighbors.

    Args:
        walk: how it hops.
        node: its number.
        neighbors: `(k,)` theirs, ascending, without itself.
        widths: `(k,)` w_ij: how likely each is proposed, up to a factor.
        log_rates: `(k,)` log r_ij, the acceptance being min(1, r_ij).
        log_target: `(k + 1,)` log mu of the neighbors and, last, of the node itself, up to a constant of the graph.
    """

    walk: Walk
    node: int
    neighbors: Integers
    widths: Floats
    log_rates: Floats
    log_target: Floats

    @cached_property
    def whose(self) -> Integers:
        """`(k + 1,)`: whose counts `next_node` takes: the neighbors', ascending, then the node's own."""
        return np.append(self.neighbors, self.node)

    @cached_property
    def _places(self) -> Integers:
        return np.arange(len(self.neighbors))

    def without(self, dead: Collection[int]) -> "Surroundings":
        """The same where some neighbors are dead, so that the walk hops among the living.

        Where a kernel can be corrected to any target, what would hop to a dead node stays, and the shares of the living
        keep their proportions; the others choose among the living neighbors.
        """
        living = ~np.isin(self.neighbors, list(dead))
        if living.all():
            return self
        if KERNELS[self.walk.kernel].any_target:
            return replace(self, log_rates=np.where(living, self.log_rates, -np.inf))
        return replace(
            self,
            neighbors=self.neighbors[living],
            widths=self.widths[living],
            log_rates=self.log_rates[living],
            log_target=self.log_target[np.append(living, True)],
        )

    def asked(self, u: float) -> list[int]:
        """The places in `whose` of the counts that the hop of `u` depends on, ascending."""
        k = len(self.neighbors)
        match self.walk.asks:
            case "neighbors' counts":
                return list(range(k + 1))
            case "proposed node's count":
                cell, _ = hops.proposal(self.widths, u)
                return [k] if cell == hops.STAY else [cell, k]
            case _:
                return []

    def next_node(
        self, u: float, counts: Floats | None = None, previous: int | None = None, *, logs: bool = False
    ) -> int:
        """Where the token goes next; maybe nowhere.

        Args:
            u: `uniform(seed, token, visit)` of the visit to come.
            counts: `(k + 1,)` x of `whose`, up to a factor, this visit included; only what `asked` names is read.
            previous: where the token was before, for a walk that asks for it; None before the first hop.
            logs: `counts` are logarithms, each up to the same constant.

        Raises:
            ValueError: a count that is asked for is missing, or not above 0.
        """
        excesses = np.zeros(len(self.neighbors) + 1)
        for place in self.asked(u):
            if counts is not None and logs and isfinite(counts[place]):
                excesses[place] = counts[place] - self.log_target[place]
                continue
            if counts is None or not counts[place] > 0:
                found = "none" if counts is None else counts[place]
                raise ValueError(
                    f"kernel {self.walk.kernel} needs a count above 0 of node {self.whose[place]}: {found}"
                )
            excesses[place] = hops.excess(counts[place], self.log_target[place])
        at = np.flatnonzero(self.neighbors == previous)
        came_from = int(at[0]) if len(at) else hops.NOWHERE
        kind, alpha, own = KERNELS[self.walk.kernel].kind, self.walk.alpha, len(self.neighbors)
        cell = hops.hop(kind, alpha, self._places, own, came_from, self.widths, self.log_rates, excesses, u)
        return self.node if cell == hops.STAY else int(self.neighbors[cell])


def key(seed: int, token: int) -> np.uint64:
    """What the random numbers of one token's path derive from."""
    return np.uint64(integer_seed(seed, token, "walk"))


def uniform(seed: int, token: int, visit: int) -> float:
    """The number in [0, 1) that decides where visit `visit` of a token is; visit 0 is the start."""
    return float(hops.uniform(key(seed, token), visit))


def first_node(seed: int, token: int, nodes: int) -> int:
    """Where a token starts: visit 0."""
    return int(uniform(seed, token, 0) * nodes)
