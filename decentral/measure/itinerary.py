"""What a token method will send, before it runs: where its tokens go is known, so all nodes are tried without data."""

import torch
from torch import Tensor

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
    algorithm = prepared.algorithm
    assert isinstance(algorithm, TokenMethod)
    assert prepared.topology is not None
    letters = algorithm.tokens * (algorithm.visits + 2 * len(prepared.topology.edges))
    rounds = min(prepared.pace.rounds, max(1, TRIED_LETTERS // letters))
    peers = {node: prepared.peer(node) for node in range(prepared.nodes)}
    states = {node: algorithm.init(prepared.meta(), peer) for node, peer in peers.items()}
    driver = LockstepDriver([_nothing] * prepared.nodes)
    for round in range(rounds):
        for peer in peers.values():
            peer.round = round
        driver.advance({node: algorithm.step(states[node], peers[node]) for node in peers}, round)
    return [driver.bytes_sent[node] / rounds for node in peers]


def itinerary(prepared: Prepared) -> list[Round]:
    """A round as one token sees it: visit after visit, each a gradient and a message; nodes that wait cost no time."""
    algorithm = prepared.algorithm
    assert isinstance(algorithm, TokenMethod)
    frame = HEADER_BYTES + payload_bytes(algorithm.kinds(prepared.meta())[TOKEN])
    return [Round(algorithm.visits, [Exchanged(1, 1, frame, 1, 0) for _ in range(algorithm.visits)])]


def _nothing(at: Tensor) -> LossAndGradient:
    return LossAndGradient(torch.empty((), device="meta"), torch.empty_like(at))
