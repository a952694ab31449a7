"""NCCL, for links between GPUs that no two ranks share. What it needs is asked before it is used.

Not every torch has it: nothing here is imported from torch before it is called.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from decentral.transport.colored import Engine
from decentral.transport.gpu import identity
from decentral.transport.side import CudaSide

NAME = "NCCL"
BACKSTOP = 4
"""A transfer that takes this many times the timeout ends the process: torch's own watchdog, where our host is stuck."""


def is_available(place: torch.device) -> bool:
    """Whether this torch has NCCL, and this process a GPU for it."""
    return place.type == "cuda" and dist.is_nccl_available()


def engine(place: torch.device, timeout_s: float) -> Engine:
    """What colored links run on at this process's GPU."""

    def make(store: Store, rank: int, size: int, connect_s: float) -> Any:
        return nccl_group(store, rank, size, place, max(connect_s, BACKSTOP * timeout_s))

    return Engine(NAME, make, CudaSide(place), identity(place))


def nccl_group(store: Store, rank: int, size: int, place: torch.device, timeout_s: float) -> Any:
    """An NCCL process group of its own, outside torch's global registry; its communicator is made at once."""
    backend = dist.ProcessGroupNCCL
    options = backend.Options()
    options._timeout = timedelta(seconds=timeout_s)
    group = backend(store, rank, size, options)
    group._set_sequence_number_for_group()
    group.eager_connect_single_device(place)
    return group
