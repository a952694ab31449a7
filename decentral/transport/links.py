"""Links: what carries frames between two neighbors. One link per edge of the graph, so one edge's fault stays its own.

A gloo link is a two-rank process group. A timeout in gloo closes every connection of its group; in a group of two that
is this edge alone (measured with torch 2.13). Receives are posted before sends: on a slow link that is 1.7 times
faster, since gloo's receive-ready notice would queue behind our own outgoing data.
"""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import local
from time import monotonic
from typing import Any

from torch import Tensor
from torch.distributed import PrefixStore, ProcessGroupGloo, Store  # type: ignore[attr-defined]

from decentral.errors import LostNeighborError, MissingEnvironmentError

NO_ANSWER = "no answer"
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"
_CONNECTING_AT_ONCE = 8


class BrokenLinkError(Exception):
    """A link failed; the text says how, in a few words."""


Finish = Callable[[float], None]
"""Waits, for at most so many seconds, until one pair of frames is through. Raises BrokenLinkError: the neighbor is
gone, or stayed silent."""


class Link(ABC):
    """Carries frames to and from one neighbor, first in, first out."""

    name: str

    @abstractmethod
    def start(self, outgoing: Tensor, incoming: Tensor) -> Finish:
        """Begin to receive into `incoming` and to send `outgoing`, both `(bytes,)` uint8; returns at once.

        Returns:
            What waits for this pair. Pairs may be waited for in any order, or never.

        Raises:
            BrokenLinkError: the neighbor is gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the connection back; pending transfers are dropped."""


class GlooLink(Link):
    """One edge as a two-rank gloo group.

    Args:
        store: where the two ends find each other; the caller prefixes it with edge and epoch.
        end: 0 at the lower-numbered node, 1 at the other.
        device: the gloo device to listen on.
        timeout_s: to connect.
    """

    name = "gloo"

    def __init__(self, store: Store, end: int, device: Any, timeout_s: float) -> None:
        self._other = 1 - end
        self._group: Any = gloo_group(store, end, 2, device, timeout_s)

    def start(self, outgoing: Tensor, incoming: Tensor) -> Finish:
        try:
            receive = self._group.recv([incoming], self._other, 0)
            send = self._group.send([outgoing], self._other, 0)
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error
        return partial(_finish, receive, send)

    def close(self) -> None:
        self._group = None


def _finish(receive: Any, send: Any, timeout_s: float) -> None:
    deadline = monotonic() + timeout_s
    try:
        for transfer in (receive, send):
            transfer.wait(timedelta(seconds=max(deadline - monotonic(), 0.001)))
    except RuntimeError as error:
        raise BrokenLinkError(told(error)) from error


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


def connect(node: int, neighbors: Iterable[int], store: Store, device: Any, timeout_s: float) -> dict[int, Link]:
    """A gloo link from a node to each of its neighbors.

    Every node takes its edges in the same global order and connects a few at once, so no two can wait for each other.

    Raises:
        LostNeighborError: a neighbor did not answer in time.
    """

    deadline = monotonic() + timeout_s
    here = local()

    def link(neighbor: int) -> Link:
        low, high = sorted((node, neighbor))
        try:
            # Each thread has its own client: a wait in a TCPStore holds up whoever else uses the same one.
            here.store = getattr(here, "store", None) or store.clone()  # type: ignore[attr-defined]
            edge = PrefixStore(f"{low}-{high}", here.store)
            return GlooLink(edge, int(node == high), device, max(deadline - monotonic(), 0.001))
        except RuntimeError as error:
            raise LostNeighborError(
                f"node {node} could not connect to node {neighbor} within {timeout_s:g} s ({told(error)}); "
                "check that its process started, or raise transport.connect_timeout_s"
            ) from error

    ordered = sorted(neighbors, key=lambda neighbor: sorted((node, neighbor)))
    with ThreadPoolExecutor(_CONNECTING_AT_ONCE) as pool:
        return dict(zip(ordered, pool.map(link, ordered), strict=True))


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
    "Connection closed by peer": "connection closed",
    "Connection reset by peer": "connection closed",
    "Connection refused": "connection refused",
    "Broken pipe": "connection closed",
}
