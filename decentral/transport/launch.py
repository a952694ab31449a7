"""Start the ranks of this machine with torchrun's own launcher, and read how they ended."""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from decentral.errors import LostNeighborError

INTERRUPTED = 130


def start_ranks(nproc: int, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str | None]:
    """Run `python -m decentral ARGUMENTS` as `nproc` ranks on this machine and wait for their end.

    Returns:
        The exit code that tells most, and a line about a rank that could not speak for itself.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.update(environment)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=f"decentral-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        local_addr="127.0.0.1",
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "decentral", *arguments)
    except ChildFailedError as error:
        return _verdict(error.failures)
    except SignalException as error:
        return 128 + error.sigval, None
    except KeyboardInterrupt:
        return INTERRUPTED, None
    return 0, None


def _verdict(failures: Mapping[int, ProcessFailure]) -> tuple[int, str | None]:
    rank, first = min(failures.items(), key=lambda item: (item[1].timestamp, item[0]))
    if first.exitcode >= 0:
        return first.exitcode, None
    name = signal.Signals(-first.exitcode).name
    if -first.exitcode == signal.SIGINT:
        return INTERRUPTED, None
    return LostNeighborError.exit_code, f"node {rank} was ended by {name}; torchrun stopped the others"
