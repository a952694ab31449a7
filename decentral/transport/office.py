"""A process's part of MPI, through mpi4py, in ranks that mpirun or the like has started.

Open MPI moves a message only while somebody is in a call to it, so a thread makes such calls while a node computes
behind a posted exchange (measured: without it nothing is hidden, with it most is). Waiting is polling with sleeps: a
rank that spins would take the core that another one computes on.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from threading import Condition, Thread
from time import monotonic, sleep
from typing import Any

import numpy as np
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from decentral.errors import MissingEnvironmentError
from decentral.transport.links import CLOSED, NO_ANSWER, BrokenLinkError
from decentral.transport.windows import Near

_YIELDS = 100
"""Polls that only yield the core, before those that sleep."""
_NAP_S = 5e-5
_PROGRESS_EVERY_S = 5e-4
_PLACE_BYTES = 512
_GET_ADDRESS = 0x8915  # SIOCGIFADDR


def mpi() -> Any:
    """mpi4py's MPI module; importing it initializes MPI.

    Raises:
        MissingEnvironmentError: no mpi4py, or no MPI library that it can load.
    """
    # Open MPI's UCX prints an error for each window where it has no network to use; ours are in memory alone.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MissingEnvironmentError(
            f"MPI cannot be loaded ({str(error).splitlines()[0][:120]}); pip install 'decentral[mpi]'"
        ) from error
    return MPI


def own_host(interface: str | None) -> str:
    """How the other hosts of a job reach this one: an interface's IPv4 address, or the host's name.

    Raises:
        MissingEnvironmentError: no such interface, or a name that means this host alone.
    """
    if interface is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                request = interface.encode()[:15].ljust(256, b"\0")
                return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _GET_ADDRESS, request)[20:24])
            except OSError as error:
                raise MissingEnvironmentError(f"interface {interface!r} has no IPv4 address: {error}") from error
    name = socket.gethostname()
    with suppress(OSError):
        if not socket.gethostbyname(name).startswith("127."):
            return name
    raise MissingEnvironmentError(
        f"this host's name, {name!r}, does not resolve to an address that other hosts reach; "
        "set transport.interface, or MASTER_ADDR and MASTER_PORT"
    )


class Office:
    """This process's part of MPI: polls its requests, and keeps messages moving while the node computes.

    Args:
        rank: what the launcher says that this process is.
        size: how many ranks it says there are.

    Raises:
        MissingEnvironmentError: MPI cannot be loaded, or it is not the launcher's and says otherwise.
    """

    def __init__(self, rank: int, size: int) -> None:
        # A process that mpirun did not start would be a job of its own for Open MPI, and leave a file in /dev/shm.
        if "OMPI_COMM_WORLD_RANK" in os.environ and not any(name.startswith("PMIX_") for name in os.environ):
            raise MissingEnvironmentError(
                f"Open MPI's variables say rank {rank} of {size}, but mpirun did not start this process (no PMIX_ "
                "variables); start it with mpirun, or unset them"
            )
        self._mpi = mpi()
        world = self._mpi.COMM_WORLD
        if (world.rank, world.size) != (rank, size):
            raise MissingEnvironmentError(
                f"the launcher started rank {rank} of {size}, and MPI says rank {world.rank} of {world.size}: mpi4py "
                "uses another MPI than the launcher's; `decentral doctor` says which"
            )
        self.comm = world.Dup()
        self.comm.Set_errhandler(self._mpi.ERRORS_RETURN)  # a lost rank is an exception here, not the end of the job
        self._overlapping = 0
        self._changed = Condition()
        self._thread: Thread | None = None

    def meet(self, host: str, patience: timedelta) -> Store:
        """A store that rank 0 keeps at a free port of `host`, which MPI tells the others."""
        place = np.zeros(_PLACE_BYTES, dtype=np.uint8)
        store = None
        if self.comm.rank == 0:
            store = TCPStore(host, 0, None, is_master=True, timeout=patience, wait_for_workers=False)
            told = f"{host} {store.port}".encode()
            place[: len(told)] = np.frombuffer(told, dtype=np.uint8)
        self.comm.Bcast(place, root=0)
        host, port = place.tobytes().rstrip(b"\0").decode().split()
        return store or TCPStore(host, int(port), None, is_master=False, timeout=patience)

    def wait(self, requests: Sequence[Any], timeout_s: float) -> None:
        """Until all requests are complete.

        Raises:
            BrokenLinkError: another rank has gone, or the time is over.
        """
        deadline, polls = monotonic() + timeout_s, 0
        statuses = [self._mpi.Status() for _ in requests]
        try:
            while not self._mpi.Request.Testall(requests, statuses):
                if monotonic() > deadline:
                    raise BrokenLinkError(NO_ANSWER)
                polls += 1
                if polls < _YIELDS:
                    os.sched_yield()
                else:
                    sleep(_NAP_S)
        except self._mpi.Exception as error:
            raise self.broken(error, *(status.error for status in statuses)) from error

    def broken(self, error: Any, *codes: int) -> BrokenLinkError:
        """What an MPI error means for a link, the codes of its requests given where there are several."""
        gone = {self._mpi.ERR_PROC_FAILED, self._mpi.ERR_PROC_FAILED_PENDING, self._mpi.ERR_REVOKED}
        found = {self._mpi.Get_error_class(code) for code in (error.Get_error_code(), *codes)}
        return BrokenLinkError(CLOSED if found & gone else str(error))

    def errors(self) -> Any:
        """The class of MPI's exceptions."""
        return self._mpi.Exception

    def among(self, ranks: Sequence[int]) -> Any:
        """A communicator of some ranks; only they take part in making it."""
        return self.comm.Create_group(self.comm.group.Incl(ranks))

    @cached_property
    def near(self) -> Near:
        """The ranks of this host; all ranks ask for them together, the first time."""
        return Near(self._mpi, self.comm, self.among)

    def overlap(self, change: int) -> None:
        """One more, or one less, exchange that goes on behind computation."""
        with self._changed:
            self._overlapping += change
            if self._overlapping and self._thread is None and self.threads_may_call():
                self._thread = Thread(target=self._keep_moving, name="decentral-mpi-progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def threads_may_call(self) -> bool:
        """Whether MPI was built and begun for calls of several threads at once."""
        return bool(self._mpi.Query_thread() == self._mpi.THREAD_MULTIPLE)

    def _keep_moving(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._overlapping != 0)
                if self._overlapping < 0:
                    return
            self.comm.Iprobe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG)
            sleep(_PROGRESS_EVERY_S)

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            with self._changed:
                self._overlapping = -sys.maxsize
                self._changed.notify()
            self._thread.join()
            self._thread, self._overlapping = None, 0
