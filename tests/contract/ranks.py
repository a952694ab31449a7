"""Ranks as threads: each with its own links over loopback gloo, all in the test's process. Seconds, not minutes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from torch.distributed import HashStore

from decentral.config import Transport
from decentral.transport.gloo import gloo_device
from decentral.transport.world import World

T = TypeVar("T")


WIRES = ("gloo", "shared-memory")
"""The transports that threads can be linked by."""


def on_ranks(nodes: int, work: Callable[[World], T], timeout_s: float = 20.0, wire: str = "gloo") -> list[T]:
    """`work(world)` on each of `nodes` ranks at once, linked by one of WIRES; their results in order of ranks."""
    store = HashStore()
    transport = Transport(name=wire, timeout_s=timeout_s, connect_timeout_s=timeout_s)
    worlds = [World(rank, nodes, store, gloo_device(None, one_machine=True), transport) for rank in range(nodes)]
    with ThreadPoolExecutor(nodes) as pool:
        return list(pool.map(work, worlds))
