"""The consensus steps that were found for a run, in its folder: a run that goes on takes the same."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from decentral.errors import ConfigError
from decentral.measure.atomic import write_atomically
from decentral.training.consensus_step import ConsensusSteps, Found
from decentral.transport.world import World

FILE = "consensus_steps.json"
_KNOWN = TypeAdapter(dict[str, Found])


def kept_in(
    folder: Path | None, world: World | None = None, tell: Callable[[str], None] | None = None
) -> ConsensusSteps:
    """The consensus steps of a run: those in its folder, and new ones, which go there too.

    Args:
        folder: of the run; None where there is none yet.
        world: the ranks of the job, of which rank 0 reads and writes; None for one process.
        tell: called with one line for each.

    Raises:
        ConfigError: the file there is not one that was written here.
    """
    if folder is None or (world is not None and world.rank != 0):
        return ConsensusSteps(world, tell=tell)
    return ConsensusSteps(world, _read(folder), tell, lambda known: _write(folder, known))


def keep(steps: ConsensusSteps, folder: Path) -> None:
    """Write what was found before the folder was there."""
    if steps.known:
        _write(folder, steps.known)


def _read(folder: Path) -> dict[str, Found]:
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return _KNOWN.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} was not written by this program; remove it, and the steps are found anew") from error


def _write(folder: Path, known: Mapping[str, Found]) -> None:
    write_atomically(folder / FILE, _KNOWN.dump_json(dict(known), indent=2) + b"\n")
