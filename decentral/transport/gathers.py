"""The gathers of one node in one real process: its frame to all ranks, and all ranks' frames to it."""

from collections.abc import Callable

import torch
from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import Payload
from decentral.transport.frames import (
    HEADER_BYTES,
    FrameError,
    Stamp,
    check_header,
    fill,
    payload_bytes,
    payload_views,
    signature,
)
from decentral.transport.staging import Staging

Perform = Callable[[Tensor, Tensor], None]
"""Brings each rank's `(bytes,)` to all ranks, as `(ranks, bytes)`."""


class Gathers:
    """All gathers of one node.

    Args:
        node: this one.
        nodes: how many there are.
        run: 64-bit digest of the experiment; all nodes must have the same.
        epoch: incarnation of the links.
    """

    def __init__(self, node: int, nodes: int, run: int, epoch: int) -> None:
        self._node, self._nodes, self._run, self._epoch = node, nodes, run, epoch
        self._round = 0
        self._sequence = 0  # gathers begun in this round
        self._memory: list[Tensor] = []  # (1 + nodes, bytes) for each gather of a round: the own frame, then all

    def begin_round(self, round: int) -> None:
        """Number the gathers of a round from 0, and use the memory of the last one's again."""
        self._round, self._sequence = round, 0

    def perform(self, payload: Payload, perform: Perform) -> dict[int, Payload]:
        """All nodes' payloads, by node; they live until the next round begins.

        Raises:
            LostNeighborError: a node sent something else.
        """
        nbytes = payload_bytes(payload)
        stamp = Stamp(self._run, self._epoch, self._node, self._round, self._sequence, signature(payload), nbytes)
        frames = self._frames(stamp.frame_bytes)
        self._sequence += 1
        fill(frames[0], stamp, payload)
        perform(frames[0], frames[1:])
        for node, frame in enumerate(frames[1:]):
            self._check(frame, stamp._replace(sender=node))
        return {node: Staging.landed(payload_views(frame, payload), payload) for node, frame in enumerate(frames[1:])}

    def _frames(self, size: int) -> Tensor:
        shape = 1 + self._nodes, size
        if self._sequence == len(self._memory):
            self._memory.append(torch.zeros(shape, dtype=torch.uint8))
        elif self._memory[self._sequence].shape != shape:
            self._memory[self._sequence] = torch.zeros(shape, dtype=torch.uint8)
        return self._memory[self._sequence]

    def _check(self, frame: Tensor, expected: Stamp) -> None:
        try:
            check_header(frame[:HEADER_BYTES].numpy().tobytes(), expected)
        except FrameError as error:
            raise LostNeighborError(
                f"node {self._node} refused a message of node {expected.sender} in round {self._round}: {error} "
                "(Gather); start every node with the same experiment"
            ) from error
