"""Links over TCP by gloo: a two-rank process group for each edge.

A timeout in gloo closes every connection of its group; in a group of two that is this edge alone (measured with torch
2.13). Receives are posted before sends, a round ahead where the largest message is known: on a slow link that is 1.7
times faster, since gloo's receive-ready notice would queue behind our own outgoing data. A direction is posted ahead
from its first message on, so one that is never used takes no memory.
"""

import os
import socket
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroupGloo, Store  # type: ignore[attr-defined]

from decentral.errors import MissingEnvironmentError
from decentral.transport.links import CLOSED, NO_ANSWER, BrokenLinkError, Finish, Link, Wait

_FOR_EVER_S = 30 * 86_400.0
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"


class GlooLink(Link):
    """One edge as a two-rank gloo group.

    Args:
        store: where the two ends find each other; the caller prefixes it with edge and epoch.
        end: 0 at the lower-numbered node, 1 at the other.
        device: the gloo device to listen on.
        timeout_s: to connect.
        largest: bytes of the largest frame that will ever come, for receives to be posted ahead; 0 if not known.
    """

    name = "gloo"

    def __init__(self, store: Store, end: int, device: Any, timeout_s: float, largest: int = 0) -> None:
        self._other = 1 - end
        self._group: Any = gloo_group(store, end, 2, device, timeout_s)
        self._largest = largest
        self._ahead: deque[tuple[Tensor, Any]] = deque()  # posted before their exchange began
        self._free: dict[int, list[Tensor]] = {}  # by size
        self._lent: dict[int, Tensor] = {}  # the buffer of each frame that is out, by its address

    def start(self, outgoing: Tensor | None, incoming: int, overlapped: bool) -> Finish:  # noqa: ARG002  gloo has threads of its own
        size = incoming if outgoing is None else outgoing.numel()
        if 0 < self._largest < size:
            raise RuntimeError(
                f"a message of {size} bytes where {self._largest} were announced; a payload must have the "
                "same shapes and dtypes in every round"
            )
        transfers, buffer = [], None
        try:
            if incoming:
                buffer, receive = self._ahead.popleft() if self._ahead else self._receive(incoming)
                transfers.append(receive)
            if outgoing is not None:
                transfers.append(self._group.send([outgoing], self._other, 0))
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error
        return partial(self._finish, transfers, buffer, incoming)

    def _receive(self, size: int) -> tuple[Tensor, Any]:
        # A message longer than its buffer kills the process, and a shorter one is taken as it is.
        size = max(size, self._largest)
        free = self._free.get(size)
        buffer = free.pop() if free else torch.zeros(size, dtype=torch.uint8)
        return buffer, self._group.recv([buffer], self._other, 0)

    def send(self, frame: Tensor) -> Wait:
        try:
            return partial(self._waited, self._group.send([frame], self._other, 0))
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error

    def next(self, size: int) -> Tensor:
        self._largest = 0  # a reader posts its receives itself
        try:
            buffer, receive = self._receive(size)
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error
        self._waited(receive, _FOR_EVER_S)
        self._lent[buffer.data_ptr()] = buffer
        return buffer

    @staticmethod
    def _waited(transfer: Any, timeout_s: float) -> None:
        try:
            transfer.wait(timedelta(seconds=timeout_s))
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error

    def _finish(self, transfers: Sequence[Any], buffer: Tensor | None, size: int, timeout_s: float) -> Tensor | None:
        deadline = monotonic() + timeout_s
        try:
            for transfer in transfers:
                transfer.wait(timedelta(seconds=max(deadline - monotonic(), 0.001)))
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error
        if buffer is None:
            return None
        self._lent[buffer.data_ptr()] = buffer
        return buffer[:size]

    def release(self, frame: Tensor) -> None:
        buffer = self._lent.pop(frame.data_ptr())
        self._free.setdefault(buffer.numel(), []).append(buffer)
        if self._largest and self._group is not None:
            try:
                self._ahead.append(self._receive(self._largest))
            except RuntimeError:
                return  # the neighbor has gone; whoever next wants something of it is told

    def close(self) -> None:
        self._group = None


def gloo_group(store: Store, rank: int, size: int, device: Any, timeout_s: float) -> Any:
    """A gloo process group of its own, outside torch's global registry."""
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = timedelta(seconds=timeout_s)
    options._devices = [device]
    return ProcessGroupGloo(store, rank, size, options)


def gloo_device(interface: str | None, one_machine: bool) -> Any:
    """The device that gloo listens on: the named interface, loopback where all ranks are on it, or gloo's own choice.

    Raises:
        MissingEnvironmentError: no such interface.
    """
    interface = interface or os.environ.get(INTERFACE_VARIABLE, "").split(",")[0] or None
    if interface is not None:
        known = [name for _, name in socket.if_nameindex()]
        if interface not in known:
            raise MissingEnvironmentError(f"no network interface {interface!r}; this machine has {', '.join(known)}")
        return ProcessGroupGloo.create_device(interface=interface)
    if one_machine:
        return ProcessGroupGloo.create_device(hostname="127.0.0.1")
    return ProcessGroupGloo.create_default_device()


def loopback_interface() -> str | None:
    """The name of this machine's loopback interface, where it has one."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)


def told(error: Exception) -> str:
    """gloo's error in a few words."""
    return told_by_gloo(error) or str(error).splitlines()[0][:120]


def told_by_gloo(error: Exception) -> str | None:
    """In a few words how a connection failed; None for an error of another kind."""
    return next((words for sign, words in _SIGNS.items() if sign in str(error)), None)


_SIGNS = {
    "Timed out waiting": NO_ANSWER,
    "Application timeout": NO_ANSWER,
    "timed out": NO_ANSWER,
    "Timeout": NO_ANSWER,
    "Wait timeout": NO_ANSWER,
    "wait timeout": NO_ANSWER,
    "Connection closed by peer": CLOSED,
    "Connection reset by peer": CLOSED,
    "Connection refused": "connection refused",
    "Broken pipe": CLOSED,
}
