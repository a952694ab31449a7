"""How a verb becomes a job of several processes: as one of its ranks, or by starting torchrun's own launcher."""

import ctypes
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from decentral.cli.console import STARTED_BY, complain, print_json
from decentral.cli.netlab import Lab, here
from decentral.config import Experiment
from decentral.errors import ConfigError, PreemptedError
from decentral.transport.gpu import own_place, placed
from decentral.transport.launcher import Launched, launched
from decentral.transport.world import World, check_place

if TYPE_CHECKING:
    from decentral.loading import Loaded
    from decentral.measure.resume import Origin

_SET_PARENT_DEATH_SIGNAL = 1


def command(verb: str, file: Path, overrides: Sequence[str], more: Sequence[str] = ()) -> str:
    """The command that a user would type for this job."""
    return shlex.join(["decentral", verb, str(file), *_options(overrides), *more]) + (
        "" if verb == "simulate" else here()
    )


def _options(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("-s", override)]


@contextmanager
def checking(nproc: int | None, experiment: Experiment, lab: Lab | None = None) -> Iterator[None]:
    """Within it the launcher looks for faults before it starts ranks; warnings are left to rank 0, which repeats them.

    Raises:
        ConfigError: another number of processes than nodes, or another fault of what was asked for.
        MissingEnvironmentError: this machine has no such GPU, or cannot make the network lab.
    """
    nodes = experiment.nodes
    check_place(experiment.transport, own_place(experiment.device))
    if lab is not None:
        if (asked := experiment.transport).survive:
            raise ConfigError(
                "survive with --netlab, which ends all ranks with the first; leave one of the two out",
                (*asked.path, "survive"),
            )
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


def carried_out(
    verb: Sequence[str],
    file: Path,
    overrides: Sequence[str],
    loaded: "Loaded",
    work: Callable[[World, Path], None],
    *,
    out: Path | None,
    json: bool,
    nproc: int | None = None,
    more: Sequence[str] = (),
    lab: Lab | None = None,
) -> Path | None:
    """Do a verb's work over all methods of an experiment: as one of the job's ranks, or by starting them here.

    Args:
        verb: its words.
        work: called as work(world, run folder) in each rank.
        more: further options of the verb, for the ranks.

    Returns:
        The run folder, where this process has the last word; None in the other ranks.
    """
    from decentral.measure.consensus_steps import keep, kept_in
    from decentral.measure.prepared import prepare_all, refuse_unfit_ranks, refuse_unlimited
    from decentral.measure.record import new_folder
    from decentral.measure.run import digest
    from decentral.methods import methods

    experiment, this = loaded.experiment, launched()
    with loaded.document.placing():
        if (asked := experiment.transport).survive:
            at = (*asked.path, "survive")
            raise ConfigError(f"survive is for train, not for {' '.join(verb)}; leave survive out", at)
        if this is None:
            with checking(nproc, experiment, lab):
                steps = kept_in(None, tell=complain)
                for ready in prepare_all(experiment, methods(experiment), experiment.seeds[0], steps):
                    refuse_unfit_ranks(ready, experiment.transport)
                    refuse_unlimited(ready)
            folder = new_folder(out, experiment.name)
            keep(steps, folder)
            start(verb, file, overrides, experiment, folder, json, more, lab)
        else:
            world = join(this, experiment, digest(experiment))
            folder = agreed_folder(world, out, experiment.name)
            work(world, folder)
    return folder if this is None or (this.rank == 0 and not started_by_us()) else None


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
    from decentral.transport.apart import start_apart
    from decentral.transport.launch import start_ranks

    arguments = [*verb, str(file), *_options(overrides), *more, "--out", str(folder)]
    environment = {STARTED_BY: str(os.getpid()), "OMP_NUM_THREADS": str(experiment.threads)}
    start_here = partial(start_ranks, experiment.nodes) if lab is None else lab.start
    if experiment.transport.survive:
        start_here = partial(start_apart, experiment.nodes, complain)
    ending = start_here(arguments, environment)
    if ending.code:
        reason = ending.reason
        if ending.code == PreemptedError.exit_code:
            reason = _told_of_sigterm(folder, command(" ".join(verb), file, overrides))
        if reason != ending.reason or not ending.said:
            complain(reason)
        if json:
            print_json({"error": reason, "exit_code": ending.code})
        raise typer.Exit(ending.code)


def _told_of_sigterm(folder: Path, resumed_by: str) -> str:
    """What is left of a job that SIGTERM ended; its ranks leave this line to their launcher."""
    from decentral.measure.checkpoints import Checkpoints

    if not (rounds := Checkpoints(folder).rounds()):
        return "ended by SIGTERM; there is no checkpoint to go on from"
    resume = shlex.join(["--resume", str(folder)])
    return f"ended by SIGTERM; the newest checkpoint is of round {rounds[-1]}: go on with `{resumed_by} {resume}`"


def started_by_us() -> bool:
    """Whether this rank's parent is our own launcher, which checks before and reports after."""
    return STARTED_BY in os.environ


def teller(world: World) -> Callable[[str], None] | None:
    """What a job says on stderr as a whole: rank 0, where no launcher of ours has said it."""
    return complain if world.rank == 0 and not started_by_us() else None


def join(this: Launched, experiment: Experiment, digest: int) -> World:
    """Become one of the job's ranks; one that we started ends with its launcher, however that ends."""
    import torch

    if started_by_us() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    torch.set_num_threads(experiment.threads)
    place = placed(experiment.device, this.local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    return World.join(this, experiment.transport, experiment.nodes, digest, place)


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


def origin(resume: Path | None, wanted: str | None, out: Path | None) -> "Origin | None":
    """What `--resume` and `--from` name.

    Raises:
        ConfigError: options that contradict each other.
    """
    from decentral.measure.resume import Origin

    if resume is None:
        if wanted is not None:
            raise ConfigError(f"--from {wanted} without --resume; give the run folder with --resume RUN")
        return None
    if out is not None and not started_by_us():
        raise ConfigError(f"--out {out} with --resume {resume}; a run goes on in its own folder, so leave --out away")
    return Origin(resume, wanted)


def agreed_origin(world: World, origin: "Origin | None") -> "Origin | None":
    """The checkpoint that rank 0 finds, named for all.

    Raises:
        ConfigError: there is none.
    """
    from decentral.measure.resume import Origin, chosen

    if origin is None:
        return None
    own = chosen(origin).wanted if world.rank == 0 else None
    return Origin(origin.run, world.agree("from", own or ""))
