"""Oracles of methods of a hub: one loop over events in the order of time, on NumPy, and no letters."""

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Change = Callable[[Vector, Vector, Vector, int], Vector | None]
"""x+ of x, the result, the point where it was begun and its delay; None where it is dropped."""


def served(
    x: Vector, work: Callable[[int, Vector], Vector], change: Change, job_s: Sequence[float], jobs: int
) -> tuple[Vector, list[int]]:
    """The hub's model and all delays, where node i + 1 does so many jobs of job_s[i] seconds each."""
    k, delays, made = 0, [], [0] * len(job_s)
    events = [(seconds, node, x, 0) for node, seconds in enumerate(job_s)]
    heapify(events)
    while events:
        now, node, start, begun = heappop(events)
        made[node] += 1
        changed = change(x, work(node + 1, start), start, k - begun)
        if changed is not None:
            delays.append(k - begun)
            x, k = changed, k + 1
        if made[node] < jobs:
            heappush(events, (now + job_s[node], node, x, k))
    return x, delays
