"""The timeline of a run on real processes: begun on rank 0's clock, and written however the run ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decentral.measure.trace import write_rank
from decentral.timeline import ROUNDS, Timeline
from decentral.transport.ping import offset_from_rank_0
from decentral.transport.world import World


@dataclass(frozen=True)
class Tracing:
    """That a run is to be traced.

    Attributes:
        folder: of the run.
        rounds: how many of the last rounds are kept.
    """

    folder: Path
    rounds: int = ROUNDS


@contextmanager
def recording(world: World, epoch: int, tracing: Tracing, label: str, seed: int) -> Iterator[Timeline]:
    """A timeline for one run of this rank, written at the end of the block, a failure's too. All ranks enter together.

    Raises:
        LostNeighborError: another rank did not compare clocks.
    """
    offset = offset_from_rank_0(world.prefixed(epoch, "clock"), world.rank, world.size)
    timeline = Timeline(world.rank, tracing.rounds)
    try:
        yield timeline
    finally:
        about = {"label": label, "seed": seed, "nodes": world.size}
        write_rank(tracing.folder, timeline, about | offset._asdict())
