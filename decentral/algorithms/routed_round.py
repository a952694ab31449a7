"""One round of a token method whose routes all nodes work out, so that each knows when whom it receives a token from.

Where a token goes is a function of (seed, token, visit) and of its own counts. So every node keeps the place and the
counts of all tokens, and advances them alike; a token carries no counts then, and nobody needs to be told of anything.

A round is cut into slots, slot v ending with the hops after each token's v-th visit. A node first hosts the visits of
its slot, in order of the tokens' numbers; then all nodes exchange: whoever a token leaves sends it, and whoever it
comes to receives it. An exchange carries at most one token along each direction of an edge; where two tokens take the
same, another follows. All nodes begin every exchange of a round, empty where they have no part in it, which costs
nothing on any link: so both ends of a link number what it carries alike. And since these numbers, with the colors
within each, order all operations of all links, none waits for another in a circle, however tokens cross.

What a node does is a function of its place in the routes, never of timing: all drivers give the same bits, with any
number of tokens and visits. With one token, or one visit in a round, they are the bits of `token_round`.

Nobody tells of losses. A node returns its visits' sum times n over all visits of the round, so that the mean over nodes
is that over visits; zero where it had none. One that is not finite ends the run at its node, and that at the others:
they find the node gone, and are told why.
"""

from collections import defaultdict
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from decentral.algorithms.token import Route, Token
from decentral.algorithms.token_round import TOKEN, Round, Walking, onward
from decentral.peer import Exchange, Letter, Messages
from decentral.topology.hops import NOWHERE
from decentral.topology.walks import first_node


class Hop(NamedTuple):
    """Where a token goes from one visit to its next; maybe nowhere."""

    token: int
    sender: int
    receiver: int


class RoutedRound(Round):
    """A round that is under way at one node; arguments as of `Round`."""

    async def run(self) -> Tensor:
        """This node's share of the mean loss `()` of the round's visits."""
        if not self.state.routes:
            self.state.routes = begun(self.method, self.peer.seed, self.peer.nodes)
        held, total = self.state.held, 0.0
        for _ in range(self.method.visits):
            self.going = advanced(self.state.routes, self.method, self.peer.seed)
            for _, token in sorted(held.items()):
                await self.visit(token)
                total, token.loss = total + token.loss, 0.0
            for together in exchanges(self.going):
                await self.exchange(together)
        self.state.held = dict(sorted(held.items()))
        share = self.peer.nodes / (self.method.tokens * self.method.visits)
        return torch.tensor(total * share, dtype=self.state.x.dtype)

    async def next_node(self, token: Token) -> int:
        return self.going[token.number].receiver

    async def exchange(self, together: list[Hop]) -> None:
        """Send the tokens that leave this node, and receive those that come."""
        held, own = self.state.held, self.peer.node
        leaving = {hop.receiver: held.pop(hop.token).payload() for hop in together if hop.sender == own}
        sources = {hop.sender: hop.token for hop in together if hop.receiver == own}
        like = self.kinds[TOKEN] if leaving or sources else ()
        received = await Exchange(Messages(leaving, tuple(sorted(sources)), like))
        for sender, number in sources.items():
            held[number] = Token.arrived(Letter(sender, TOKEN, received[sender]), own, counted=False)


def begun(method: Walking, seed: int, nodes: int) -> list[Route]:
    """Where all tokens start, by number."""
    return [
        Route(first_node(seed, k, nodes), Token(k, 0, 0, NOWHERE, 0.0, [], method.counts()))
        for k in range(method.tokens)
    ]


def advanced(routes: list[Route], method: Walking, seed: int) -> list[Hop]:
    """Let every token make one visit and its hop, in place; the hops, by number of the token."""
    hops = []
    for route in routes:
        token, node = route.token, route.at
        if token.counts is not None:
            method.count(token.counts, token.visit, node)
        token.visit += 1
        route.at = onward(method.around(node), token, seed)
        token.came_from = node
        hops.append(Hop(token.number, node, route.at))
    return hops


def exchanges(hops: list[Hop]) -> list[list[Hop]]:
    """Those that lead elsewhere, such that no two of an exchange take the same direction of an edge."""
    lanes: dict[tuple[int, int], list[Hop]] = defaultdict(list)
    for hop in hops:
        if hop.sender != hop.receiver:
            lanes[hop.sender, hop.receiver].append(hop)
    return [[hop for hop in together if hop is not None] for together in zip_longest(*lanes.values())]
