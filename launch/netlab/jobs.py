"""Run a command on every host at once: what it writes, how it ends, and how it is ended."""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import IO

from faults import LabError, StoppedError, ignore_signals
from lab import Lab
from names import Names

_SET_PARENT_DEATH_SIGNAL = 1
_GRACE_S = 10.0
_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


@dataclass
class Job:
    """A command on one host."""

    host: int
    process: "subprocess.Popen[bytes]"
    ended_s: float | None = None  # after all were started

    @property
    def code(self) -> int | None:
        """As a shell tells it: 128 + the number of the signal that ended it."""
        code = self.process.returncode
        return 128 - code if code is not None and code < 0 else code

    def signal(self, signum: int) -> None:
        """To the command and all that it has started in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signum)


class Jobs:
    """The commands of a lab. As a context manager it leaves none running.

    Args:
        lab: where; its router must live as long as they.
        prefix: `others` marks what all hosts but the first write, `all` all, `none` none.
    """

    def __init__(self, lab: Lab, prefix: str = "others") -> None:
        self._lab, self._prefix = lab, prefix
        self._selector = selectors.DefaultSelector()
        self._jobs: list[Job] = []
        self._begin = monotonic()
        if lab.router is not None:
            self._selector.register(os.pidfd_open(lab.router.pid), selectors.EVENT_READ, lab)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        ignore_signals()
        signum = error.signum if isinstance(error, StoppedError) else signal.SIGTERM
        self.end(signum)

    def start(self, host: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Runs a command on a host."""
        marked = self._prefix == "all" or (self._prefix == "others" and host > 0)
        process = self._lab.names.popen(
            host,
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if marked else None,
            stderr=subprocess.PIPE if marked else None,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        job = Job(host, process)
        self._jobs.append(job)
        self._selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ, job)
        if process.stdout is not None and process.stderr is not None:
            self._pass_on(host, process.stdout, sys.stdout)
            self._pass_on(host, process.stderr, sys.stderr)

    def wait(self, together: bool = False) -> int:
        """Until all have ended; the exit code of the first that failed, or 0.

        Args:
            together: once one has failed, end the others.

        Raises:
            LabError: the router died.
        """
        while self._running():
            self._step(None)
            if together and any(job.code for job in self._jobs):
                self.end(signal.SIGTERM)
        self._drain()
        failed = [job for job in self._jobs if job.code]
        return min(failed, key=lambda job: job.ended_s or 0.0).code or 0 if failed else 0

    def end(self, signum: int) -> None:
        """Ends those that still run: by a signal first, by force after a while."""
        for sent, patience_s in ((signum, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
            for job in self._running():
                job.signal(sent)
            end = monotonic() + patience_s
            while self._running() and (left := end - monotonic()) > 0:
                self._step(left)
        self._drain()

    def report(self) -> list[dict[str, int | float | None]]:
        """Each command's process number, its return code (negative: the signal that ended it) and when it ended."""
        return [
            {"host": job.host, "pid": job.process.pid, "code": job.process.returncode, "ended_s": job.ended_s}
            for job in self._jobs
        ]

    def _running(self) -> list[Job]:
        return [job for job in self._jobs if job.code is None]

    def _drain(self) -> None:
        while self._step(0):
            pass

    def _step(self, patience_s: float | None) -> bool:
        """Handles what has happened, or happens within the time; whether anything has."""
        happened = self._selector.select(patience_s)
        for key, _ in happened:
            if isinstance(key.data, Job):
                self._selector.unregister(key.fd)
                os.close(key.fd)
                key.data.process.wait()
                key.data.ended_s = monotonic() - self._begin
            elif isinstance(key.data, Lab):
                self._selector.unregister(key.fd)
                os.close(key.fd)
                raise LabError("the router has died, and the links with it; it said why above")
            elif not key.data.pump():
                self._selector.unregister(key.fileobj)
        return bool(happened)

    def _pass_on(self, host: int, source: IO[bytes], sink: IO[str]) -> None:
        self._selector.register(source, selectors.EVENT_READ, _Marked(Names.host(host), source, sink.buffer))  # type: ignore[attr-defined]


class _Marked:
    """Passes on what a host writes, with its name before each line."""

    def __init__(self, host: str, source: IO[bytes], sink: IO[bytes]) -> None:
        self._mark, self._source, self._sink = f"[{host}] ".encode(), source, sink
        self._rest = b""

    def pump(self) -> bool:
        """Whether there may be more."""
        found = os.read(self._source.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + found).split(b"\n")
        if not found and self._rest:
            lines, self._rest = [self._rest], b""
        self._sink.write(b"".join(self._mark + line + b"\n" for line in lines))
        self._sink.flush()
        return bool(found)
