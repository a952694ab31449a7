"""Consensus control: after each round of a gossip method, as many further gossip steps as keep nodes within a target.

With Xi^2 = 1/n sum_i ||x_i - xbar||^2 the consensus distance, Gamma the target, S a symmetric mixing matrix on the
links with the second eigenvalue l_2 and rho = max(|l_2|, |l_n|) (`topology.extra_gossip`), x what the method's round
has left, and eta ||g_i|| the step of node i's gradient in it:

    u     = 0.9 u + 0.1 (1/n sum_i (eta ||g_i||)^2)^(1/2)                       where the target is relative
    Gamma = target, or target u

    repeat  d_i = sum_j s_ij ||x_i - x_j||^2           one exchange of models
            B^2 = 1/(2n (1 - l_2)) sum_i d_i >= Xi^2
            k   = the least with rho^k B <= Gamma; end if k = 0
            x   = S^ceil(k/3) x                        the first step is of the models that were exchanged
    until   k = 1, or max_steps are taken

So Xi <= Gamma in the end, and the mean of all models is the method's own. rho^k is what k steps do at worst, and B is
Xi at best: the first of them do more, so that after a third of them another look often finds enough. A look costs no
more models than the step after it. On the quadratics of the tests, ring of 16, the rule takes 274 steps in 30 rounds
where the exact distance asks for 259, in 68 looks; one look a round takes 663 steps, and a look at each step 270.

All nodes must take the same k, or an exchange would have one end. So they pass on (d_i, (eta ||g_i||)^2), two numbers
for each node, to all neighbors, diameter times: then every node has all n pairs, sums them in the order of nodes, and
has the same k to the bit, without a root or a collective. A maximum would be one number, but it exceeds the mean by up
to n, on a star by n/2; a count that follows the rounds before bounds nothing in the round in which nodes part; and
agreement edge by edge bounds nothing but edges.

    B at the end   state.bound    u   state.scale    steps   state.extra_steps    exchanges of models   state.exchanges
    rounds in which max_steps did not suffice   state.short

Reference: Kong, Lin, Koloskova, Jaggi and Stich 2021 (arXiv:2102.04828), for what is controlled and why in phases; the
bound, the choice of k and the agreement are this project's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.local import LocalSteps
from decentral.errors import ConfigError
from decentral.peer import LossAndGradient, Payload, Peer
from decentral.topology.extra_gossip import ExtraGossip
from decentral.topology.mixing import Row
from decentral.topology.schedule import weakest
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology

MEMORY = 0.9
"""Weight of the past in the mean norm of steps."""

SHARE = 3
"""One of so many of the steps that the worst case needs is taken before the next look."""

TINY = 1e-30
"""What a target counts as at least, relative to the distance."""


@dataclass(slots=True)
class ControlState(State):
    inner: Any  # the method's State; its x and local are lent for its step, and None between rounds
    scale: float = 0.0  # u; 0 before the first controlled round
    bound: float = 0.0  # on the consensus distance after the last controlled round
    extra_steps: int = 0
    exchanges: int = 0
    short: int = 0


@dataclass(slots=True)
class Watching(Peer):
    """A peer that notes the norm of the step along the round's last gradient."""

    local: LocalSteps | None = None
    square: float = 0.0  # (eta ||g||)^2

    async def gradient(self, at: Tensor) -> LossAndGradient:
        answer = await Peer.gradient(self, at)
        if self.local is not None and not at.is_meta:
            self.square = (self.local.lr * norm(answer.gradient)) ** 2
        return answer


@dataclass(frozen=True, kw_only=True)
class ConsensusControl(Algorithm):
    """Another method, controlled.

    Args:
        of: the method.
        target: what the consensus distance is kept under; None or infinity for no control.
        relative: whether the target is in units of the mean norm of gradient steps.
        phases: `(round, target)`, ascending: from each round on, its target takes the place of the one before.
        max_steps: the most steps after one round.
        gossip: how the steps are taken on the graph; `on` finds it.

    Raises:
        ConfigError: the phases do not ascend.
    """

    of: Algorithm
    target: float | None
    relative: bool = False
    phases: Sequence[tuple[int, float | None]] = ()
    max_steps: int = 100
    gossip: ExtraGossip | None = None

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.phases]
        if starts != sorted({*starts}):
            raise ConfigError(f"found phases that start at {starts}; required: ascending rounds")
        if self.of.local is not self.local:
            object.__setattr__(self, "of", replace(self.of, local=self.local))

    @property
    def starts_alike(self) -> bool:
        return self.of.starts_alike

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        needed: Kind = self.of.mixing
        if weakest(needed, graph.schedule.kind) != needed:
            raise ConfigError(
                f"the mixing matrix of {graph.name} is {graph.schedule.kind}, and {type(self.of).__name__} needs one "
                f"that is {needed}"
            )
        return self.of.suited(graph)

    def on(self, graph: Topology) -> "ConsensusControl":
        return replace(self, of=self.of.on(graph), gossip=ExtraGossip.on(graph))

    def share(self, state: ControlState, peer: Peer) -> tuple[Tensor, float] | None:
        with lent(state) as inner:
            return self.of.share(inner, peer)

    def notes(self, state: ControlState) -> dict[str, float]:
        counts = {"extra_steps": state.extra_steps, "exchanges": state.exchanges, "short": state.short}
        return {**counts, "bound": state.bound}

    def init(self, x: Tensor, peer: Peer) -> ControlState:
        inner: Any = self.of.init(x, peer)
        state = ControlState(x=x, local=inner.local, inner=inner)
        inner.x = inner.local = None
        return state

    def target_at(self, round: int) -> float:
        """The target of a round; infinity where it is not controlled."""
        passed = [target for start, target in self.phases if start <= round]
        target = passed[-1] if passed else self.target
        return math.inf if target is None else target

    async def step(self, state: ControlState, peer: Peer) -> Tensor:
        target = self.target_at(peer.round)
        controlled = target < math.inf and peer.nodes > 1
        watched = watching(peer, state.local) if controlled and self.relative else peer
        with lent(state) as inner:
            loss = await self.of.step(inner, watched)
        if controlled:
            await self._control(state, peer, target, watched.square if isinstance(watched, Watching) else 0.0)
        return loss

    async def _control(self, state: ControlState, peer: Peer, target: float, square: float) -> None:
        if self.gossip is None:
            raise ValueError("consensus control does not know its graph; run algorithm.on(graph) instead")
        row, x, left = self.gossip.matrix.row(peer.node), state.x, self.max_steps
        linked, needed, count = replace(peer, rows=lambda _: row), left, 0
        while count < needed and left:
            received = await linked.exchange((x,))
            reports = await self._flooded((apart(row, x, received), square), linked, x)
            if x.is_meta:  # a dry run has no numbers, and so takes no steps
                return
            differences, squares = (sum(column) / len(column) for column in zip(*reports.tolist(), strict=True))
            if left == self.max_steps and self.relative:
                target *= self._scaled(state, math.sqrt(squares))
            bound = math.sqrt(differences / 2 / (1 - self.gossip.second))
            needed = steps_to(target, bound, self.gossip.rho)
            count = min(-(-needed // SHARE), left)
            await self._further(count, x, linked, received)
            left -= count
            state.exchanges += max(1, count)
            state.bound = bound * self.gossip.rho**count
        state.extra_steps += self.max_steps - left
        state.short += count < needed

    def _scaled(self, state: ControlState, size: float) -> float:
        """u, with the root mean square of this round's gradient steps in it."""
        state.scale = MEMORY * state.scale + (1 - MEMORY) * size if state.scale else size
        return state.scale

    async def _further(self, count: int, x: Tensor, linked: Peer, received: Mapping[int, Payload]) -> None:
        """So many gossip steps of `x: (d,)`, the first of the models that were received."""
        if count:
            x.copy_(linked.combine(x, received))
        for _ in range(count - 1):
            await linked.mix_(x)

    async def _flooded(self, own: tuple[float, float], linked: Peer, x: Tensor) -> Tensor:
        """All nodes' pairs of numbers, `(n, 2)` float64; NaN until they are known."""
        assert self.gossip is not None
        known = torch.full((linked.nodes, 2), math.nan, dtype=torch.float64, device=x.device)
        known[linked.node] = torch.tensor(own, dtype=torch.float64, device=x.device)
        for _ in range(self.gossip.hops):
            for (told,) in (await linked.exchange((known,))).values():
                known = torch.where(known.isnan(), told, known)
        return known


def steps_to(target: float, bound: float, rho: float) -> int:
    """The least k with `rho^k bound <= target`, 0 where the bound is no number; a target of 0 counts as very small."""
    if not math.isfinite(bound) or bound <= target:
        return 0
    if rho <= TINY:
        return 1
    target = max(target, TINY * bound)
    count = max(1, math.ceil(math.log(target / bound) / math.log(rho)))
    return count + (bound * rho**count > target)  # where the logarithms were rounded down


def watching(peer: Peer, local: LocalSteps) -> Watching:
    """The same peer, which notes the norm of the step along a gradient."""
    return Watching(peer.node, peer.nodes, peer.rows, peer.layout, peer.seed, peer.round, peer.static, local)


def norm(x: Tensor) -> float:
    """||x|| of `x: (d,)`, summed in float64."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


def apart(row: Row, x: Tensor, received: Mapping[int, Payload]) -> float:
    """`sum_j s_ij ||x_i - x_j||^2` of my `x: (d,)` and the neighbors'; NaN of a dry run."""
    if x.is_meta:
        return math.nan
    return math.fsum(row.weights[j] * norm(x - theirs) ** 2 for j, (theirs,) in sorted(received.items()))


@contextmanager
def lent(state: ControlState) -> Iterator[Any]:
    """The method's own State, whole while it is used."""
    state.inner.x, state.inner.local = state.x, state.local
    try:
        yield state.inner
    finally:
        state.inner.x = state.inner.local = None
