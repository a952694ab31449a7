"""How far a rank's clock is from rank 0's, by asking it for the time over the job's store."""

from time import perf_counter_ns
from typing import NamedTuple

from torch.distributed import Store  # type: ignore[attr-defined]

from decentral.errors import LostNeighborError

PINGS = 8


class Offset(NamedTuple):
    """This rank's clock, `time.perf_counter_ns`, against rank 0's."""

    ahead_ns: int  # what to subtract from this rank's clock to have rank 0's
    round_trip_ns: int  # of the ping that was used; the offset is wrong by half of it at most


def offset_from_rank_0(store: Store, rank: int, size: int) -> Offset:
    """All ranks call this together, once for each store; rank 0 answers the others one by one.

    Rank 0's time is taken for the middle of the ping, and of all pings the shortest counts.

    Raises:
        LostNeighborError: another rank did not answer within the store's own timeout.
    """
    try:
        if rank == 0:
            for other in range(1, size):
                for ping in range(PINGS):
                    store.get(f"ask/{other}/{ping}")
                    store.set(f"answer/{other}/{ping}", str(perf_counter_ns()))
            return Offset(0, 0)
        return offset_of([_ping(store, rank, ping) for ping in range(PINGS)])
    except RuntimeError as error:
        raise LostNeighborError(f"node {rank} compared clocks with the others in vain") from error


def _ping(store: Store, rank: int, ping: int) -> tuple[int, int, int]:
    asked = perf_counter_ns()
    store.set(f"ask/{rank}/{ping}", "")
    there = int(store.get(f"answer/{rank}/{ping}"))
    return asked, there, perf_counter_ns()


def offset_of(pings: list[tuple[int, int, int]]) -> Offset:
    """From pings: when it was asked here, rank 0's time, and when the answer was here."""
    asked, there, answered = min(pings, key=lambda ping: ping[2] - ping[0])
    ahead, round_trip = (asked + answered) // 2 - there, answered - asked
    # Ranks of one host have one clock: an offset that the ping cannot tell from none is none.
    return Offset(ahead if 2 * abs(ahead) > round_trip else 0, round_trip)
