"""What `decentral doctor` tries out, each in a process of its own: `python -m decentral.transport.probes torch`.

A library that is broken may hang, abort or crash its process: whoever asks waits for a limited time, and reads one line
of JSON.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from time import perf_counter
from typing import Any

Facts = dict[str, Any]


def torch_probe() -> Facts:
    """torch's version, and what GPUs and NCCL it brings."""
    import torch

    cuda = torch.cuda.is_available()
    nccl: Any = torch.cuda.nccl
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "nccl": ".".join(map(str, nccl.version())) if torch.distributed.is_nccl_available() else None,
    }


def gloo_probe() -> Facts:
    """Two ranks, as threads, sum a vector over loopback, in a group made as a run makes its own."""
    import torch
    from torch.distributed import HashStore  # type: ignore[attr-defined]

    from decentral.transport.gloo import gloo_device, gloo_group

    store, device = HashStore(), gloo_device(None, one_machine=True)

    def rank(number: int) -> float:
        x = torch.full((1000,), float(number + 1))
        gloo_group(store, number, 2, device, 20.0).allreduce([x]).wait()
        return float(x.sum())

    with ThreadPoolExecutor(2) as pool:
        sums = list(pool.map(rank, range(2)))
    if sums != [3000.0, 3000.0]:
        raise RuntimeError(f"two ranks summed to {sums}, not to 3000 each")
    return {"ranks": 2}


def numba_probe() -> Facts:
    """Whether numba compiles and runs a kernel here, and how long that takes."""
    import numba
    import numpy as np

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
    def mixed(x: Any, y: Any) -> Any:
        for index in range(x.size):
            x[index] = 0.5 * (x[index] + y[index])
        return x

    start = perf_counter()
    found = mixed(np.ones(8, np.float32), np.zeros(8, np.float32))
    if found.sum() != 4:
        raise RuntimeError(f"a compiled kernel gave {found.sum()} for 4")
    return {"version": numba.__version__, "compile_s": perf_counter() - start}


def mpi_probe() -> Facts:
    """Which MPI mpi4py loads; MPI itself is not initialized, which is for ranks alone."""
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    vendor, numbers = MPI.get_vendor()
    return {
        "mpi4py": version("mpi4py"),
        "vendor": vendor,
        "version": ".".join(map(str, numbers)),
        "standard": ".".join(map(str, MPI.Get_version())),
        "library": MPI.Get_library_version().strip("\0\n ").splitlines()[0],
    }


def mpi_rank_probe() -> Facts:
    """One of the ranks that mpirun starts: what all of them sum up to."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return {"rank": world.Get_rank(), "size": world.Get_size(), "sum": world.allreduce(world.Get_rank() + 1)}


PROBES: dict[str, Callable[[], Facts]] = {
    "torch": torch_probe,
    "gloo": gloo_probe,
    "numba": numba_probe,
    "mpi": mpi_probe,
    "mpi-rank": mpi_rank_probe,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PROBES[sys.argv[1]]()) + "\n")
