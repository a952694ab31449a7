"""What neighbors have pushed and a node has not looked at: one place for each, which keeps the newest.

The threads that read the links fill the places. The node's own thread looks into them, and never waits for a lock that
anybody holds longer than a pointer takes to be swapped.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from queue import Empty, Queue
from typing import NamedTuple

import torch

from decentral.peer import Arrival, Payload
from decentral.transport.place import Place


class Parcel(NamedTuple):
    """What a neighbor has pushed, in memory that is to be given back."""

    payload: Payload
    step: int
    at_s: float
    give_back: Callable[[], None]


class Mailbox:
    """The places of one node.

    Args:
        neighbors: who may push.
        like: what is pushed has its shapes and dtypes.
    """

    def __init__(self, neighbors: Iterable[int], like: Payload) -> None:
        self._places: dict[int, Place[Parcel]] = {neighbor: Place() for neighbor in sorted(neighbors)}
        self._like = like
        self._bell: Queue[None] = Queue()
        self._lent: dict[int, Parcel] = {}
        self._sums: dict[int, list[Payload]] = {neighbor: [] for neighbor in self._places}  # that nobody reads

    def put(self, neighbor: int, parcel: Parcel, adds: bool) -> None:
        """Called by the one thread that reads a neighbor's link."""
        place = self._places[neighbor]
        if adds:
            earlier = place.swap(None)
            place.swap(parcel if earlier is None else self._sum(neighbor, earlier, parcel))
        elif (earlier := place.swap(parcel)) is not None:
            earlier.give_back()
        if adds or earlier is None:
            self.ring()

    def _sum(self, neighbor: int, earlier: Parcel, parcel: Parcel) -> Parcel:
        """Both, added up in other memory: a frame may be the neighbor's own."""
        free = self._sums[neighbor]
        out = free.pop() if free else tuple(torch.empty_like(tensor) for tensor in parcel.payload)
        for total, a, b in zip(out, earlier.payload, parcel.payload, strict=True):
            torch.add(a, b, out=total)
        earlier.give_back()
        parcel.give_back()
        return parcel._replace(payload=out, give_back=lambda: free.append(out))

    def ring(self) -> None:
        """Wake the node, where it waits until there is something."""
        self._bell.put(None)

    def wait(self, seconds: float) -> None:
        """Until somebody rings, or the time is over."""
        with suppress(Empty):
            self._bell.get(timeout=seconds)

    def is_empty(self) -> bool:
        """Whether nothing is there to be taken."""
        return all(place.is_empty() for place in self._places.values())

    def take(self) -> Mapping[int, Arrival]:
        """All that is there, in ascending order of neighbors. What was taken of the same ones before is given back."""
        with suppress(Empty):
            while True:
                self._bell.get_nowait()
        taken = {}
        for neighbor, place in self._places.items():
            if (parcel := place.swap(None)) is None:
                continue
            if neighbor in self._lent:
                self._lent[neighbor].give_back()
            self._lent[neighbor] = parcel
            taken[neighbor] = Arrival(self._on_device(parcel.payload), parcel.step, parcel.at_s)
        return taken

    def drop(self) -> None:
        """All that is there goes; what was taken before stays lent."""
        for place in self._places.values():
            if (parcel := place.swap(None)) is not None:
                parcel.give_back()

    def _on_device(self, payload: Payload) -> Payload:
        return tuple(part.to(tensor.device) for part, tensor in zip(payload, self._like, strict=True))

    def give_back(self) -> None:
        """All that is lent and all that is there."""
        for neighbor, place in self._places.items():
            for parcel in (self._lent.pop(neighbor, None), place.swap(None)):
                if parcel is not None:
                    parcel.give_back()
