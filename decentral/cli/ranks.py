"""How a verb becomes a job of several processes: as one of its ranks, or by starting torchrun's own launcher."""

import ctypes
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import typer

from decentral.cli.console import STARTED_BY, complain, print_json
from decentral.cli.netlab import Lab, here
from decentral.config import Experiment
from decentral.errors import ConfigError
from decentral.transport.launcher import Launched
from decentral.transport.world import World

_SET_PARENT_DEATH_SIGNAL = 1


def command(verb: str, file: Path, overrides: Sequence[str], more: Sequence[str] = ()) -> str:
    """The command that a user would type for this job."""
    return shlex.join(["decentral", verb, str(file), *_options(overrides), *more]) + (
        "" if verb == "simulate" else here()
    )


def _options(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("-s", override)]


@contextmanager
def checking(nproc: int | None, nodes: int, lab: Lab | None = None) -> Iterator[None]:
    """Within it the launcher looks for faults before it starts ranks; warnings are left to rank 0, which repeats them.

    Raises:
        ConfigError: another number of processes than nodes, or another fault of what was asked for.
        MissingEnvironmentError: this machine cannot make the network lab.
    """
    if lab is not None:
        if nproc is not None:
            raise ConfigError("--nproc starts processes on this machine and --netlab on the hosts of a lab; give one")
        lab.check(nodes)
    if nproc not in (None, nodes):
        raise ConfigError(
            f"--nproc {nproc} for nodes: {nodes}; one process is one node, so use --nproc {nodes} or -s nodes={nproc}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def start(
    verb: Sequence[str],
    file: Path,
    overrides: Sequence[str],
    experiment: Experiment,
    folder: Path,
    json: bool,
    more: Sequence[str] = (),
    lab: Lab | None = None,
) -> None:
    """Run the verb as one rank per node on this machine or in a network lab, and return when all went well.

    Raises:
        typer.Exit: with the ranks' exit code; they have said why.
    """
    from decentral.transport.launch import start_ranks

    arguments = [*verb, str(file), *_options(overrides), *more, "--out", str(folder)]
    environment = {STARTED_BY: str(os.getpid()), "OMP_NUM_THREADS": str(experiment.threads)}
    start_here = partial(start_ranks, experiment.nodes) if lab is None else lab.start
    ending = start_here(arguments, environment)
    if ending.code:
        if not ending.said:
            complain(ending.reason)
        if json:
            print_json({"error": ending.reason, "exit_code": ending.code})
        raise typer.Exit(ending.code)


def started_by_us() -> bool:
    """Whether this rank's parent is our own launcher, which checks before and reports after."""
    return STARTED_BY in os.environ


def join(launched: Launched, experiment: Experiment, digest: int) -> World:
    """Become one of the job's ranks; one that we started ends with its launcher, however that ends."""
    import torch

    if started_by_us() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    torch.set_num_threads(experiment.threads)
    return World.join(launched, experiment.transport, experiment.nodes, digest)


def agreed_folder(world: World, out: Path | None, name: str) -> Path:
    """The job's run folder: rank 0 makes it, the others are told."""
    from decentral.measure.record import new_folder

    if started_by_us():
        assert out is not None
        return out
    own = str(new_folder(out, name)) if world.rank == 0 else ""
    folder = Path(world.agree("folder", own))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
