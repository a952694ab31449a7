"""What a topology costs on the wire: messages and bytes per round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decentral.topology.contraction import turns_of
from decentral.topology.mixing import MixingMatrix
from decentral.topology.topology import Topology

BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Traffic:
    """Messages of one model each, as they are sent; those received are as many over all nodes.

    `round_messages` is what a round waits for: the messages of the turn's busiest node, sent or received, in the mean
    over the turns.
    """

    messages_mean: float  # per node and round
    messages_busiest: int  # of one node in one round, sent or received
    round_messages: float


def traffic(topology: Topology) -> Traffic:
    """Of a period; of a drawn schedule, of its first turns."""
    turns = turns_of(topology.schedule)
    per_turn = [_messages(turn) for turn in turns]
    busiest = [int(np.maximum(sent, received).max()) for sent, received in per_turn]
    total = sum(int(sent.sum()) for sent, _ in per_turn)
    return Traffic(total / len(turns) / topology.nodes, max(busiest), sum(busiest) / len(busiest))


def _messages(matrix: MixingMatrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(n,)` each: what every node sends and receives."""
    entries = matrix.sparse.tocoo()
    others = entries.row != entries.col
    sent, received = (np.bincount(ends[others], minlength=matrix.n) for ends in (entries.col, entries.row))
    return sent, received
