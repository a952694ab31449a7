"""Short measurements of this machine, for a prediction: memory, sockets, and the experiment's own step."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Thread
from time import perf_counter

import torch

from decentral.measure.cost import Machine
from decentral.measure.prepared import Prepared

_SMALLEST_BYTES, _LARGEST_BYTES = 1 << 16, 1 << 26
_LOOPBACK_BYTES = 1 << 24
_CHUNK_BYTES = 1 << 18
_REPETITIONS = 5


def this_machine(ranks: int, threads: int, model_bytes: int, alone: bool) -> Machine:
    """What each of several ranks has of this machine.

    Args:
        ranks: on this machine.
        threads: of each.
        model_bytes: of the vectors that will be mixed: small ones stay in a cache.
        alone: whether this process measures for all of them; else each of the ranks measures now, as this one does.
    """
    at_once = min(ranks, cores()) if alone else 1
    share = at_once / ranks if alone else 1.0
    return Machine(
        memory_bytes_s=share * _together(at_once, lambda: _memory_bytes_s(model_bytes)),
        loopback_bytes_s=share * _together(at_once, _loopback_bytes_s),
        spare_core=ranks * threads < cores(),
    )


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def step_seconds(ready: Prepared) -> float:
    """The median time of one step without communication: gradient and local optimizer, on this machine as it is."""
    x, objective = ready.task.start(), ready.task.objective(0)
    local = ready.local.bind(x, objective.layout)
    times = []
    for _ in range(2 + _REPETITIONS):
        began = perf_counter()
        objective.begin_step()
        local.step(objective.gradient(x).gradient)
        times.append(perf_counter() - began)
    return median(times[2:])


def _together(count: int, measure: Callable[[], float]) -> float:
    """The mean of some measurements made at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(lambda _: measure(), range(count))) / count


def _memory_bytes_s(model_bytes: int) -> float:
    """Bytes read and written a second in copies of one vector into another."""
    size = min(max(model_bytes, _SMALLEST_BYTES), _LARGEST_BYTES)
    source, target = torch.ones(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)
    copies = -(-_LARGEST_BYTES // size)
    times = []
    for _ in range(1 + _REPETITIONS):
        began = perf_counter()
        for _ in range(copies):
            target.copy_(source)
        times.append(perf_counter() - began)
    return 2 * size * copies / median(times[1:])


def _loopback_bytes_s() -> float:
    """Bytes a second that this process sends to itself through TCP, and so receives."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            times = [_transfer_s(near, far) for _ in range(1 + _REPETITIONS)]
    return _LOOPBACK_BYTES / median(times[1:])


def _transfer_s(near: socket.socket, far: socket.socket) -> float:
    outgoing, incoming = memoryview(bytes(_LOOPBACK_BYTES)), memoryview(bytearray(_CHUNK_BYTES))
    began = perf_counter()
    sending = Thread(target=near.sendall, args=(outgoing,))
    sending.start()
    left = _LOOPBACK_BYTES
    while left:
        left -= far.recv_into(incoming, min(left, _CHUNK_BYTES))
    sending.join()
    return perf_counter() - began
