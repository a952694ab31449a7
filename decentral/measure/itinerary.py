"""What a token method will send, before it runs: where its tokens go is known, so all nodes are tried without data."""

from dataclasses import fields, replace
from math import ceil

import torch
from torch import Tensor

from decentral.algorithms.counting_round import QUESTIONS
from decentral.algorithms.token_round import TOKEN
from decentral.algorithms.tokens import TokenMethod
from decentral.measure.prepared import Prepared
from decentral.peer import LossAndGradient
from decentral.transport.dry import Exchanged, Round
from decentral.transport.frames import HEADER_BYTES, payload_bytes
from decentral.transport.lockstep import LockstepDriver

TRIED_LETTERS = 20_000
"""About how many letters are tried at most, all nodes together."""


def walks(prepared: Prepared) -> bool:
    """Whether the method's model walks."""
    return isinstance(prepared.algorithm, TokenMethod)


def bytes_per_round(prepared: Prepared) -> list[float]:
    """Bytes that each node sends in a round, headers included: the mean over the first rounds."""
    algorithm = _method(prepared)
    assert prepared.topology is not None
    edges, asked = len(prepared.topology.edges), _asked(algorithm)
    letters = algorithm.tokens * (algorithm.visits * (1 + 2 * ceil(asked)) + 2 * edges)
    rounds = min(prepared.pace.rounds, max(1, TRIED_LETTERS // letters))
    driver = LockstepDriver([_nothing] * prepared.nodes)
    peers = {node: prepared.peer(node) for node in range(prepared.nodes)}
    states = {node: algorithm.init(prepared.meta(), peer) for node, peer in peers.items()}
    for round in range(rounds):
        for peer in peers.values():
            peer.round = round
        driver.advance({node: algorithm.step(states[node], peers[node]) for node in peers}, round)
    return [driver.bytes_sent[node] / rounds for node in peers]


def carried_and_sent(prepared: Prepared, node: int) -> tuple[list[object], int]:
    """What a node's State holds beside the model and the local optimizer, with as many tokens as come on one node in
    the mean, one at least; and the bytes of the largest letter."""
    algorithm, x = _method(prepared), prepared.meta()
    state, kinds = algorithm.init(x, prepared.peer(node)), algorithm.kinds(x)
    parts = [getattr(state, field.name) for field in fields(state) if field.name not in ("x", "local", "held")]
    tokens = [kinds[TOKEN]] * ceil(algorithm.tokens / prepared.nodes)
    return [*parts, tokens], HEADER_BYTES + max(map(payload_bytes, kinds))


def _method(prepared: Prepared) -> TokenMethod:
    assert isinstance(prepared.algorithm, TokenMethod)
    return prepared.algorithm


def itinerary(prepared: Prepared) -> list[Round]:
    """A round as one token sees it: visit after visit, each a gradient and a message, before which neighbors may be
    asked for their counts; nodes that wait cost no time."""
    algorithm = _method(prepared)
    hop = [Exchanged(1, 1, HEADER_BYTES + payload_bytes(algorithm.kinds(prepared.meta())[TOKEN]), 1, 0)]
    if asked := ceil(_asked(algorithm)):
        hop += [Exchanged(asked, asked, HEADER_BYTES + payload_bytes(letter), 1, 0) for letter in QUESTIONS]
    return [Round(algorithm.visits, [replace(sent) for _ in range(algorithm.visits) for sent in hop])]


def _asked(algorithm: TokenMethod) -> float:
    """How many neighbors are asked for their counts before a hop, in the mean over the nodes."""
    if algorithm.counts_at == "token":
        return 0.0
    assert algorithm.chain is not None
    return 1.0 if algorithm.walk.asks == "proposed node's count" else len(algorithm.chain.neighbors) / algorithm.chain.n


def _nothing(at: Tensor) -> LossAndGradient:
    return LossAndGradient(torch.empty((), device="meta"), torch.empty_like(at))
