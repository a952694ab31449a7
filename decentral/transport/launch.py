"""Start the ranks of this machine with torchrun's own launcher, and read how they ended."""

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from types import FrameType
from typing import NamedTuple

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from decentral.errors import INTERRUPTED, LostNeighborError


class Ending(NamedTuple):
    """How a job ended: the exit code that tells most, why, and whether a rank has said so itself."""

    code: int
    reason: str = ""
    said: bool = True


def start_ranks(nproc: int, arguments: Sequence[str], environment: Mapping[str, str]) -> Ending:
    """Run `python -m decentral ARGUMENTS` as `nproc` ranks on this machine and wait for their end."""
    logging.disable(logging.CRITICAL)  # torchrun's own lines; the ranks say what happened
    os.environ.update(environment)
    with TemporaryDirectory(prefix="decentral-") as logs:
        return _started(nproc, arguments, logs)


def _started(nproc: int, arguments: Sequence[str], logs: str) -> Ending:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=f"decentral-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        local_addr="127.0.0.1",
        logs_specs=DefaultLogsSpecs(log_dir=logs),
    )
    signal.signal(signal.SIGUSR1, pass_on)
    try:
        elastic_launch(config, sys.executable)("-m", "decentral", *arguments)
    except ChildFailedError as error:
        return verdict(error.failures)
    except SignalException as error:
        return Ending(128 + error.sigval, f"ended by {signal.Signals(error.sigval).name}", said=False)
    except KeyboardInterrupt:
        return Ending(INTERRUPTED, "interrupted", said=False)
    return Ending(0)


class Ended(NamedTuple):
    """How one rank ended: its return code (negative: the signal), when, and the file with its last word."""

    code: int
    at_s: float
    word: Path


def ending_of(ranks: Mapping[int, Ended]) -> Ending:
    """How a job ended whose ranks something else than torchrun has started."""
    failures = {}
    for rank, ended in ranks.items():
        if ended.code:
            failures[rank] = ProcessFailure(rank, pid=0, exitcode=ended.code, error_file=str(ended.word))
            failures[rank].timestamp = round(1e3 * ended.at_s)
    return verdict(failures) if failures else Ending(0)


def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Send a signal on to those ranks that catch it already; it would end the others."""
    me = os.getpid()
    with suppress(OSError):  # /proc is Linux's own
        for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
            if caught >> (number - 1) & 1:
                os.kill(int(child), number)


def leave_word(reason: str) -> None:
    """In a rank: write why it ends to where torchrun's launcher reads it."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        word = {"message": reason, "timestamp": int(time())}
        with suppress(OSError):  # the launcher then knows the exit code alone
            Path(path).write_text(json.dumps(word), encoding="utf-8")


def verdict(failures: Mapping[int, ProcessFailure]) -> Ending:
    """How a job ended of which these ranks failed: what the first of them that is a cause came to."""
    # torchrun ends whoever is left with SIGTERM once one has failed: that one is never the cause.
    causes = {rank: failure for rank, failure in failures.items() if failure.exitcode != -signal.SIGTERM} or failures
    rank, first = min(causes.items(), key=lambda item: (item[1].timestamp, item[0]))
    if first.exitcode >= 0:
        return Ending(first.exitcode, first.message)
    if -first.exitcode == signal.SIGINT:
        return Ending(INTERRUPTED, "interrupted", said=False)
    name = signal.Signals(-first.exitcode).name
    reason = f"node {rank} was ended by {name}; the others were stopped"
    return Ending(LostNeighborError.exit_code, reason, said=False)
