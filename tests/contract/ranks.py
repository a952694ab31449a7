"""Ranks as threads: each with its own links over loopback gloo, all in the test's process. Seconds, not minutes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from torch.distributed import HashStore, Store

from decentral.config import Transport
from decentral.transport.colored import Engine
from decentral.transport.gloo import gloo_device, gloo_group
from decentral.transport.side import NoSide
from decentral.transport.world import World

T = TypeVar("T")


WIRES = ("gloo", "shared-memory", "colored")
"""The transports that threads can be linked by; colored links, which are for NCCL, over gloo groups that block."""


def _gloo_group(device: Any, store: Store, rank: int, size: int, connect_s: float) -> Any:
    return gloo_group(store, rank, size, device, connect_s)


def on_ranks(nodes: int, work: Callable[[World], T], timeout_s: float = 20.0, wire: str = "gloo") -> list[T]:
    """`work(world)` on each of `nodes` ranks at once, linked by one of WIRES; their results in order of ranks."""
    store = HashStore()
    name = "nccl" if wire == "colored" else wire
    transport = Transport(name=name, timeout_s=timeout_s, connect_timeout_s=timeout_s)
    device = gloo_device(None, one_machine=True)
    engine = Engine("gloo, colored", partial(_gloo_group, device), NoSide()) if wire == "colored" else None
    worlds = [World(rank, nodes, store, device, transport, engine=engine) for rank in range(nodes)]
    with ThreadPoolExecutor(nodes) as pool:
        return list(pool.map(work, worlds))
