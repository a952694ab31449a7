"""The letters of simulated nodes: on their way, and as the nodes may look at them."""

from collections import deque
from collections.abc import Sequence

import torch

from decentral.peer import GONE, Letter, Payload, Receive, Send
from decentral.transport.driver import kind_of, versions
from decentral.transport.frames import HEADER_BYTES, payload_bytes


def changed(node: int | None) -> RuntimeError:
    """What a simulator raises where a node writes to what it received; None where it may be any of several."""
    who = "a node" if node is None else f"node {node}"
    return RuntimeError(f"{who} changed a payload that it had received; clone it, and change the clone")


class Mail:
    """All letters of a simulation.

    Args:
        nodes: whose.
        poison: overwrite a letter with NaN once its node may look at it no more.
    """

    def __init__(self, nodes: Sequence[int], poison: bool = False) -> None:
        self._boxes: dict[int, deque[Letter]] = {node: deque() for node in nodes}
        self._open: dict[int, tuple[Payload, tuple[int, ...]]] = {}  # each node's last letter, and its versions
        self._poison = poison
        self.used = False

    def letter(self, node: int, asked: Send) -> tuple[Letter, int]:
        """A copy of what a node sends, and the bytes of its frame."""
        self.used = True
        kind = kind_of(asked.payload, asked.kinds, node)
        copy = tuple(tensor.clone() for tensor in asked.payload)
        return Letter(node, kind, copy), HEADER_BYTES + payload_bytes(copy)

    def deliver(self, to: int, letter: Letter) -> None:
        """It has arrived.

        Raises:
            RuntimeError: there is no such node.
        """
        if to not in self._boxes:
            raise RuntimeError(f"node {letter.sender} sent a letter to node {to}, which there is not")
        self._boxes[to].append(letter)

    def is_empty(self, node: int) -> bool:
        """Whether a node would wait."""
        return not self._boxes[node]

    def take(self, node: int, asked: Receive) -> Letter | None:
        """A node's next letter, None if none has arrived; the one before is closed."""
        if not self._boxes[node]:
            return None
        self._close(node)
        letter = self._boxes[node].popleft()
        if letter.kind == GONE:
            return letter
        letter = letter._replace(kind=kind_of(letter.payload, asked.kinds, letter.sender))
        self._open[node] = letter.payload, versions(letter.payload)
        return letter

    def close_all(self) -> None:
        """The round has ended, and no node looks at a letter any more.

        Raises:
            RuntimeError: one has written to it.
        """
        for node in [*self._open]:
            self._close(node)

    def _close(self, node: int) -> None:
        payload, before = self._open.pop(node, ((), ()))
        if versions(payload) != before:
            raise changed(node)
        for tensor in payload if self._poison else ():
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)

    def clear(self) -> None:
        """Forget all letters."""
        self._open.clear()
        for box in self._boxes.values():
            box.clear()
