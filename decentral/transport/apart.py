"""Start the ranks of this machine so that the death of one does not end the others, and wait for all of them.

torchrun's launcher ends all ranks of a host when one dies. So each rank has a launching context of its own, of the same
library; and the store in which they meet is here, in a process that no node's death can end.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, SignalException, start_processes
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from decentral.errors import LostNeighborError
from decentral.transport.launch import Ending, pass_on, verdict
from decentral.transport.survivors import Dead, all_linked

HOST = "127.0.0.1"
LOOK_EVERY_S = 0.05
END_S = 30
"""How long ranks that are told to end may take."""

Tell = Callable[[str], None]


def start_apart(nproc: int, tell: Tell, arguments: Sequence[str], environment: Mapping[str, str]) -> Ending:
    """Run `python -m decentral ARGUMENTS` as `nproc` ranks on this machine, and wait until each has ended.

    Args:
        tell: called with a line for each node that died, where the others went on to a good end.
    """
    logging.disable(logging.CRITICAL)  # torch's own lines; the ranks say what happened
    os.environ.update(environment)
    signal.signal(signal.SIGUSR1, pass_on)
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    with TemporaryDirectory(prefix="decentral-") as logs:
        job = _Job(nproc, store, tell)
        try:
            with job.started([sys.executable, "-m", "decentral", *arguments], Path(logs)):
                return job.waited()
        except SignalException as error:
            return Ending(128 + error.sigval, f"ended by {signal.Signals(error.sigval).name}", said=False)


class _Job:
    """Ranks that live and die one by one."""

    def __init__(self, nproc: int, store: TCPStore, tell: Tell) -> None:
        self._nproc, self._store, self._tell = nproc, store, tell
        self._running: dict[int, PContext] = {}
        self._lost: dict[int, str] = {}  # how each rank that died was ended

    @contextmanager
    def started(self, command: Sequence[str], logs: Path) -> Iterator[None]:
        """Within it ranks run a command; at its end whoever is left is ended, by the signal that ended it, if any."""
        self._began = monotonic()
        number = signal.SIGTERM
        try:
            for rank in range(self._nproc):
                self._running[rank] = self._start(rank, command, logs / str(rank))
            yield
        except SignalException as error:
            number = error.sigval
            raise
        finally:
            self._end(number)

    def _start(self, rank: int, command: Sequence[str], logs: Path) -> PContext:
        logs.mkdir()
        return start_processes(
            name="decentral",
            entrypoint=command[0],
            args={0: tuple(command[1:])},
            envs={0: self._environment(rank)},
            logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
        )

    def _environment(self, rank: int) -> dict[str, str]:
        """What tells a rank who it is, and where the others are."""
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self._nproc, "LOCAL_WORLD_SIZE": self._nproc}
        return {name: str(number) for name, number in numbers.items()} | {
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(self._store.port),
            "TORCHELASTIC_RUN_ID": f"decentral-{os.getpid()}",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": str(True),
        }

    def waited(self) -> Ending:
        """How the job ended: well where a rank did, and none failed otherwise than by its death."""
        while self._running:
            for rank, context in [*self._running.items()]:
                if (result := context.wait(0)) is None:
                    continue
                del self._running[rank]
                if (failure := result.failures.get(0)) and (ending := self._failed(rank, failure)):
                    return ending
            sleep(LOOK_EVERY_S)
        if len(self._lost) == self._nproc:
            return self._ended_by("no node is left")
        for rank, how in sorted(self._lost.items()):
            self._tell(f"node {rank} {how}; the others went on")
        return Ending(0)

    def _failed(self, rank: int, failure: ProcessFailure) -> Ending | None:
        """How the job ends because a rank failed; None where it goes on without that one."""
        if failure.exitcode >= 0:
            return verdict({rank: failure})
        name = signal.Signals(-failure.exitcode).name
        self._lost[rank] = f"was ended by {name} after {monotonic() - self._began:.1f} s"
        if not all_linked(self._store, self._nproc):
            return self._ended_by("before all nodes were linked, so the others were stopped")
        Dead(self._store).declare([rank])
        return None

    def _ended_by(self, why: str) -> Ending:
        rank, how = next(iter(self._lost.items()))
        return Ending(LostNeighborError.exit_code, f"node {rank} {how}: {why}", said=False)

    def _end(self, number: int) -> None:
        for context in self._running.values():  # all at once, and once: a second signal would disturb their end
            for pid in context.pids().values():
                with suppress(ProcessLookupError):
                    os.killpg(pid, number)
        deadline = monotonic() + END_S
        while self._running and monotonic() < deadline:
            self._running = {rank: context for rank, context in self._running.items() if context.wait(0) is None}
            sleep(LOOK_EVERY_S)
        for context in self._running.values():
            context.close(signal.SIGKILL)
