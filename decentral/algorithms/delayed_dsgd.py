"""D-SGD with delays: what comes late in an asynchronous run, late on purpose and in rounds, so that it can be studied.

With W the mixing matrix, eta the learning rate, g_i^k(.) node i's gradient on the minibatch of round k, tau a delay:

    of models       x_i^(k+1) = w_ii x_i^k + sum_j w_ij x_j^(k-tau) - eta g_i^k(x_i^k)
    of gradients    x_i^(k+1) = sum_j w_ij x_j^k - eta g_i^k(x_i^(k-tau))

tau is fixed, or drawn for each link (models) or node (gradients) and round from a histogram of staleness, such as an
asynchronous run has recorded. A round k < tau goes back to the start. `- eta g` stands for the step of whichever local
optimizer is chosen. With tau = 0 both are D-SGD in the order adapt-while-communicate, to the bit.

On a quadratic with the greatest curvature L, late gradients converge below, and diverge above, exactly

    eta L = 2 sin(pi / (2 (2 tau + 1)))

which is where z^(tau+1) - z^tau + eta L has a root on the unit circle. Late models slow down gossip and keep no mean,
but do not diverge of themselves.

    x^k, ..., x^(k-tau)    state.past, x^k at place k mod (tau + 1)

References: Agarwal and Duchi 2011 (arXiv:1104.5525) and Stich and Karimireddy 2020 (arXiv:1909.05350) for delayed
gradients; Assran et al. 2019 for delayed gossip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.seeding import turn_stream


@dataclass(slots=True)
class DelayedState(State):
    past: list[Tensor]  # (d,) the last models
    drift: Tensor  # (d,) scratch: what mixing changes, until the step is taken


@dataclass(frozen=True, kw_only=True)
class DelayedDSGD(Algorithm):
    delay: int | None = None  # tau; 1 where there is no histogram
    of: Literal["models", "gradients"] = "models"
    histogram: Sequence[int] = ()  # how often tau is 0, 1, 2, ...

    def __post_init__(self) -> None:
        if self.histogram and self.delay is not None:
            raise ConfigError("found a fixed delay and a histogram of delays; leave one of them out")
        if self.histogram and not sum(self.histogram):
            raise ConfigError("found a histogram that counts nothing; required: how often each delay is, 0 first")

    @property
    def longest(self) -> int:
        """The greatest delay that there can be."""
        if self.histogram:
            return len(self.histogram) - 1
        return 1 if self.delay is None else self.delay

    def init(self, x: Tensor, peer: Peer) -> DelayedState:
        past = [torch.zeros_like(x) for _ in range(self.longest + 1)]
        return DelayedState(x=x, local=self.local.bind(x, peer.layout), past=past, drift=torch.zeros_like(x))

    async def step(self, state: DelayedState, peer: Peer) -> Tensor:
        state.past[peer.round % len(state.past)].copy_(state.x)
        if self.of == "models":
            sent = {j: (self._past(state, peer, f"from {peer.node} to {j}"),) for j in peer.row().to}
            ticket = await peer.post_each(sent, like=(state.x,))
            loss, gradient = await peer.gradient(state.x)
        else:
            ticket = await peer.post((state.x,))
            loss, gradient = await peer.gradient(self._past(state, peer, f"at {peer.node}"))
        peer.drift(state.x, await peer.collect(ticket), out=state.drift)
        state.local.step(gradient)
        state.x.add_(state.drift)
        return loss

    def _past(self, state: DelayedState, peer: Peer, where: str) -> Tensor:
        """The node's own model some rounds ago."""
        delay = min(self.drawn(peer.seed, peer.round, where), peer.round)
        return state.past[(peer.round - delay) % len(state.past)]

    def drawn(self, seed: int, round: int, where: str) -> int:
        """The delay of a round at a link or a node."""
        if not self.histogram:
            return self.longest
        upto = np.cumsum(self.histogram)
        return int(np.searchsorted(upto, turn_stream(seed, round, f"delay {where}").integers(upto[-1]), side="right"))
