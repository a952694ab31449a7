"""AD-PSGD: nodes average in pairs with whomever they please, while they compute, and nobody waits for anybody.

With eta the learning rate and g_i(.) node i's minibatch gradient, node i again and again:

    x~ = x_i, and where it has no request out, that is sent to a neighbor j at random (or the one of its turn)
    x_i <- x_i - eta g_i(x~)
    for each letter that has come:
        the request x~_j of j:           d = (x~_j - x_i) / 2;   x_i <- x_i + d;   d is the reply
        the same, its own out at j:      x_i <- x_i + (x~_j - x~_i) / 2;           no reply
        the reply d of j:                x_i <- x_i - d

`- eta g` stands for the step of whichever local optimizer is chosen. The third line is that of two requests that cross,
which both ends recognize, since what one sends another comes in order: both do the same with opposite sign. So the sum
of all models and of the replies under way moves by the nodes' steps alone, whatever the order of letters is.

In the paper, who asks holds a lock while both average, and the graph must be bipartite lest they lock in a circle.
Here nobody locks: x_i goes on while its request is under way, and what comes back is a difference. So any graph will
do, and where nothing changes in between, the pair has the same model afterwards, as there. A node looks at its letters
after each gradient; one that is slow is late to answer, and who asked it asks nobody else meanwhile.

Where all are equally fast, nothing takes time on the wire and a schedule pairs the nodes off, all requests cross, and
this is D-SGD over these matchings in the order adapt-while-communicate, to the bit.

    x~_i    state.offered    j    state.asked, -1 for nobody, since its step state.since

Staleness is of requests: how many steps of its own the node has made until it was answered. With `max_delay` it waits
for the answer once that many are made, and answers others meanwhile.

References: Lian, Zhang, Zhang and Liu 2018 (arXiv:1710.06952), Algorithm 1; Assran et al. 2019's code of it
(facebookresearch/stochastic_gradient_push) for the split into those that ask and those that are asked.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.asynchronous import Asynchronous, AsynchronousState
from decentral.peer import Letter, Payload, Peer, weighted_sum
from decentral.seeding import turn_stream
from decentral.topology.stochastic import Kind

REQUEST, REPLY = range(2)
"""The kinds of letters."""
NOBODY = -1


@dataclass(slots=True)
class PairState(AsynchronousState):
    offered: Tensor  # (d,) what was sent with the request that is out
    asked: int
    since: int
    change: Tensor  # (d,) scratch
    mark: Tensor  # (1,) a byte, by which a reply is told from a request

    def kinds(self) -> tuple[Payload, ...]:
        """A letter of each kind, for its shapes."""
        return (self.x,), (self.x, self.mark)


@dataclass(frozen=True, kw_only=True)
class ADPSGD(Asynchronous):
    mixing: ClassVar[Kind] = "symmetric"
    uses_weights: ClassVar[bool] = False
    staleness_counts: ClassVar[str] = "a node's own steps until its request is answered"

    def init(self, x: Tensor, peer: Peer) -> PairState:
        return PairState(
            x=x,
            local=self.local.bind(x, peer.layout),
            staleness=[],
            came={},
            offered=torch.zeros_like(x),
            asked=NOBODY,
            since=0,
            change=torch.zeros_like(x),
            mark=torch.zeros(1, dtype=torch.uint8, device=x.device),
        )

    async def step(self, state: PairState, peer: Peer) -> Tensor:
        kinds = state.kinds()
        if state.asked == NOBODY and (neighbors := peer.row().to):
            chosen = turn_stream(peer.seed, peer.round, f"whom node {peer.node} asks").integers(len(neighbors))
            state.asked, state.since = neighbors[int(chosen)], peer.round
            state.offered.copy_(state.x)
            await peer.send(state.asked, (state.offered,), kinds)
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        while (letter := await peer.receive_if_any(kinds)) is not None:
            await self._read(state, letter, peer)
        while self._is_overdue(state, peer):
            await self._read(state, await peer.receive(kinds), peer)
        return loss

    async def serve(self, state: PairState, peer: Peer) -> Tensor:
        while True:
            await self._read(state, await peer.receive(state.kinds()), peer)

    def _is_overdue(self, state: PairState, peer: Peer) -> bool:
        return self.max_delay is not None and state.asked != NOBODY and peer.round - state.since >= self.max_delay

    async def _read(self, state: PairState, letter: Letter, peer: Peer) -> None:
        sender, own = letter.sender, peer.node
        if letter.kind == REPLY:
            state.x.sub_(letter.payload[0])
            self._answered(state, peer)
            return
        is_crossing = sender == state.asked
        mine = state.offered if is_crossing else state.x
        weighted_sum({own: -0.5, sender: 0.5}, {own: mine, sender: letter.payload[0]}, out=state.change)
        state.x.add_(state.change)
        if is_crossing:
            self._answered(state, peer)
        else:
            await peer.send(sender, (state.change, state.mark), state.kinds())

    def _answered(self, state: PairState, peer: Peer) -> None:
        state.used(peer.round - state.since)
        state.asked = NOBODY
