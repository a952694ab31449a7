"""Decentralized (gossip) SGD in its three orders, with local steps.

With W the mixing matrix, eta the learning rate and g_i(.) node i's minibatch gradient:

    adapt-then-combine        x_i+ = sum_j w_ij (x_j - eta g_j(x_j))
    combine-then-adapt        z_i = sum_j w_ij x_j;   x_i+ = z_i - eta g_i(z_i)
    adapt-while-communicate   x_i+ = sum_j w_ij x_j - eta g_i(x_i)

The first is ATC diffusion, the second CTA, the third D-PSGD. `- eta g` stands for the step of whichever local optimizer
is chosen: torch.optim.SGD with momentum makes it DSGDm, with nesterov DSGDm-N, and torch.optim.Adam or AdamW
decentralized Adam, each node with buffers of its own. With `every = tau` the rounds k with (k + 1) mod tau = 0 mix and
the others have W = I (cooperative SGD). With a compressor C, which rounds each number, a mixing is
x_i + sum_j w_ij (C(x_j) - C(x_i)).

References: Lian et al. 2017 (arXiv:1705.09056), Algorithm 1, for adapt-while-communicate; Cattivelli and Sayed 2010
(IEEE TSP 58(3)) for the other two; Wang and Joshi 2018 (arXiv:1808.07576), section 3, for local steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.compression import Compressor, Key, Named, Space, compressor_of, section_of, warm_up
from decentral.errors import ConfigError
from decentral.peer import Payload, Peer

ROUNDING = ("none", "bf16", "fp16")
"""Compressors whose C(x) is near enough to x for models to be sent without error feedback."""

Order = Literal["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"]


@dataclass(slots=True)
class DSGDState(State):
    drift: Tensor | None  # (d,) scratch of adapt-while-communicate: what mixing changes, until the step is taken
    message: Tensor | None  # what is sent, where it is compressed


@dataclass(frozen=True, kw_only=True)
class DSGD(Algorithm):
    order: Order = "adapt-then-combine"
    every: int = 1  # tau
    compression: Named = "none"  # or one of ROUNDING

    @property
    def bears_gossip(self) -> bool:
        return bool(section_of(self.compression).name == "none")

    def __post_init__(self) -> None:
        section = section_of(self.compression)
        if section.name not in ROUNDING:
            raise ConfigError(
                f"found {section.name}, and dsgd sends the models themselves: what {section.name} leaves out of one is "
                f"lost without error feedback; take one of {', '.join(ROUNDING)}, or CHOCO-SGD, the method for such "
                "compressors",
                section.path or None,
            )

    def _compressor(self, x: Tensor, peer: Peer) -> Compressor:
        return compressor_of(self.compression, Space.of(x, peer.layout))

    def init(self, x: Tensor, peer: Peer) -> DSGDState:
        section = section_of(self.compression)
        is_plain = section.name == "none"
        if not is_plain and not x.is_meta:
            warm_up(section, x.dtype, device=x.device)
        overlaps = self.order == "adapt-while-communicate" and is_plain
        return DSGDState(
            x=x,
            local=self.local.bind(x, peer.layout),
            drift=torch.empty_like(x) if overlaps else None,
            message=None if is_plain else self._compressor(x, peer).message(x.device),
        )

    async def step(self, state: DSGDState, peer: Peer) -> Tensor:
        if (peer.round + 1) % self.every:
            return await self._local_step(state, peer)
        # A schedule advances with each mixing, not with each round: tau may share a factor with its period.
        turn = peer.round // self.every
        if self.order == "adapt-then-combine":
            loss = await self._local_step(state, peer)
            await self._mix(state, peer, turn)
            return loss
        if self.order == "combine-then-adapt":
            await self._mix(state, peer, turn)
            return await self._local_step(state, peer)
        return await self._adapt_while_communicating(state, peer, turn)

    async def _local_step(self, state: DSGDState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        return loss

    async def _mix(self, state: DSGDState, peer: Peer, turn: int) -> None:
        if state.message is None:
            await peer.mix_(state.x, turn)
            return
        self._encode(state, peer)
        self._add_differences(state, peer, await peer.exchange((state.message,), turn), turn)

    def _encode(self, state: DSGDState, peer: Peer) -> None:
        assert state.message is not None
        self._compressor(state.x, peer).encode(state.x, state.message, Key(peer.seed, peer.round, peer.node))

    def _add_differences(self, state: DSGDState, peer: Peer, received: Mapping[int, Payload], turn: int) -> None:
        """x_i += sum_j w_ij (C(x_j) - C(x_i)): what C rounds off stays at its node, so the mean of all is kept."""
        assert state.message is not None
        weights = dict(peer.row(turn).weights)
        weights[peer.node] -= 1
        messages = {peer.node: state.message} | {sender: payload[0] for sender, payload in received.items()}
        key = Key(peer.seed, peer.round, peer.node)
        self._compressor(state.x, peer).add(state.x, weights, messages, key)

    async def _adapt_while_communicating(self, state: DSGDState, peer: Peer, turn: int) -> Tensor:
        if state.message is not None:
            self._encode(state, peer)
            ticket = await peer.post((state.message,), turn)
            loss = await self._local_step(state, peer)
            self._add_differences(state, peer, await peer.collect(ticket), turn)
            return loss
        assert state.drift is not None
        ticket = await peer.post((state.x,), turn)
        loss, gradient = await peer.gradient(state.x)
        peer.drift(state.x, await peer.collect(ticket), turn, out=state.drift)
        # The step is taken at x_i, where the gradient was, and not at the mixed point: weight decay depends on it.
        state.local.step(gradient)
        state.x.add_(state.drift)
        return loss
