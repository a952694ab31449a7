"""One hop of a walk, and many: one text, compiled, for a node that holds a token and for a simulation of thousands.

A walk at node i draws u, uniform in [0, 1). It proposes neighbor j with probability q_ij = w_ij / sum_k w_ik, accepts
it with probability a_ij = min(1, r_ij) and stays where it is otherwise. The range of u is laid out in cells, one for
each neighbor, ascending: as wide as w_ij, of which the share a_ij leads to j and the rest back to i. So one number is
enough, and the kernels that depend on visits fall back on the same cells, bit for bit, at alpha = 0.

A node's excess is log(x_i / mu_i): its visits x_i over what the target mu_i gives it, both up to a factor.

    srrw   weight of j: w_ij a_ij (x_j / mu_j)^-alpha, of staying: sum_j w_ij (1 - a_ij) (x_i / mu_i)^-alpha
    hdt    a_ij = min(1, r_ij ((x_j / mu_j) / (x_i / mu_i))^-alpha)

All compiled code of walks is in this file, since numba keeps what it compiled until the file itself changes.
"""

from math import exp, inf, log

import numpy as np
from numpy.typing import NDArray

from decentral.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]

STAY = -1
NOWHERE = -1
IMPOSSIBLE = -700.0
"""Below this log of a rate, its exponential is next to 0 or is it."""

MARKOV, NON_BACKTRACKING, SELF_REPELLENT, HISTORY_DRIVEN = range(4)
"""How a walk hops."""


@compiled
def uniform(key: np.uint64, visit: int) -> float:
    """The number in [0, 1) of one visit: SplitMix64 (Steele, Lea and Flood 2014), at any place of its stream."""
    z = np.uint64(key) + np.uint64(visit + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@compiled
def excess(count: float, log_target: float) -> float:
    """log(x_i / mu_i)."""
    return log(count) - log_target


@compiled
def acceptance(log_rate: float) -> float:
    """min(1, r) from log r."""
    return 1.0 if log_rate >= 0 else exp(log_rate)


@compiled
def hop(
    kind: int,
    alpha: float,
    places: Integers,
    own: int,
    previous: int,
    widths: Floats,
    log_rates: Floats,
    excesses: Floats,
    u: float,
) -> int:
    """Which neighbor is next, as an index into `places`; or STAY.

    Args:
        kind: MARKOV, NON_BACKTRACKING, SELF_REPELLENT or HISTORY_DRIVEN.
        alpha: how strongly visits repel, 0 or more.
        places: `(k,)` where the neighbors, ascending, stand in `excesses`.
        own: where the node itself stands there.
        previous: the place of the node that the walk came from, or NOWHERE; for NON_BACKTRACKING.
        widths: `(k,)` w_ij.
        log_rates: `(k,)` log r_ij.
        excesses: log(x / mu) at the places: all of them for SELF_REPELLENT, of the node itself and of the proposed
            neighbor for HISTORY_DRIVEN, none for the others.
        u: in [0, 1).
    """
    if kind == NON_BACKTRACKING:
        return _onward(places, previous, u)
    if kind == SELF_REPELLENT:
        return _repelled(alpha, places, own, widths, log_rates, excesses, u)
    cell, left = proposal(widths, u)
    if cell == STAY:
        return STAY
    log_rate = log_rates[cell]
    if kind == HISTORY_DRIVEN:
        log_rate -= alpha * (excesses[places[cell]] - excesses[own])
    return cell if left < widths[cell] * acceptance(log_rate) else STAY


@compiled
def proposal(widths: Floats, u: float) -> tuple[int, float]:
    """The cell that u falls into, and how far into it; STAY where there is no cell."""
    x, begin = u * _sum(widths), 0.0
    for cell in range(len(widths)):
        if x < begin + widths[cell]:
            return cell, x - begin
        begin += widths[cell]
    return STAY, 0.0


@compiled
def _sum(widths: Floats) -> float:
    total = 0.0
    for width in widths:
        total += width
    return total


@compiled
def _onward(places: Integers, previous: int, u: float) -> int:
    """Uniform over the neighbors but the previous one; back from a dead end."""
    k, back = len(places), -1
    for index in range(k):
        if places[index] == previous:
            back = index
    if back < 0 or k == 1:
        return int(u * k) if k else STAY
    chosen = int(u * (k - 1))
    return chosen if chosen < back else chosen + 1


@compiled
def _repelled(
    alpha: float, places: Integers, own: int, widths: Floats, log_rates: Floats, excesses: Floats, u: float
) -> int:
    """One draw from K_i[x]. In log space up to the largest weight, so that no alpha and no count overflows."""
    largest = -inf
    for cell in range(len(places)):
        if log_rates[cell] > IMPOSSIBLE:
            largest = max(largest, -alpha * excesses[places[cell]])
        if log_rates[cell] < 0:
            largest = max(largest, -alpha * excesses[own])
    staying = _tilt(alpha, excesses[own], largest)
    going, cells = np.empty(len(places)), np.empty(len(places))
    for cell in range(len(places)):
        a = acceptance(log_rates[cell])
        # At alpha = 0 the tilts are 1 and a + (1 - a) rounds to 1 for every a, so the cells are those of `proposal`.
        accepted = a * _tilt(alpha, excesses[places[cell]], largest)
        going[cell], cells[cell] = widths[cell] * accepted, widths[cell] * (accepted + (1 - a) * staying)
    chosen, left = proposal(cells, u)
    return chosen if chosen != STAY and left < going[chosen] else STAY


@compiled
def _tilt(alpha: float, excess: float, largest: float) -> float:
    """(x / mu)^-alpha over the largest. What has no weight may lie above the largest and must not overflow."""
    return exp(min(0.0, -alpha * excess - largest))


@compiled
def tread(
    kind: int,
    alpha: float,
    starts: Integers,
    neighbors: Integers,
    widths: Floats,
    log_rates: Floats,
    log_target: Floats,
    counts: Floats,
    key: np.uint64,
    path: Integers,
) -> None:
    """A whole walk: `path` (T,) receives the nodes of the visits 0..T-1, and `counts` (n,) is raised by them.

    The arrays up to `log_target` are those of `chains.Chain`. Visit 0 is at a node drawn uniformly.
    """
    excesses = np.empty(len(counts))
    for i in range(len(counts)):
        excesses[i] = excess(counts[i], log_target[i])
    previous, node = NOWHERE, int(uniform(key, 0) * len(counts))
    for visit in range(len(path)):
        if visit > 0:
            a, b = starts[node], starts[node + 1]
            u = uniform(key, visit)
            chosen = hop(kind, alpha, neighbors[a:b], node, previous, widths[a:b], log_rates[a:b], excesses, u)
            previous, node = node, node if chosen == STAY else neighbors[a + chosen]
        path[visit] = node
        counts[node] += 1
        excesses[node] = excess(counts[node], log_target[node])


@compiled
def survey(path: Integers, target: Floats, marks: Integers, visits: Integers, distances: Floats) -> int:
    """Of one path: `visits` (n,) per node, `distances` (C,), the total variation to the target after each of `marks`.

    Returns:
        After how many visits every node had one; -1 where some have none.
    """
    mark, unseen, cover = 0, len(visits), -1
    for step in range(len(path)):
        node = path[step]
        if visits[node] == 0:
            unseen -= 1
            if unseen == 0:
                cover = step + 1
        visits[node] += 1
        while mark < len(marks) and marks[mark] == step + 1:
            distance = 0.0
            for i in range(len(visits)):
                distance += abs(visits[i] / (step + 1) - target[i])
            distances[mark] = distance / 2
            mark += 1
    return cover


@compiled
def descend(
    alpha: float,
    a: float,
    b: float,
    starts: Integers,
    neighbors: Integers,
    widths: Floats,
    log_rates: Floats,
    log_target: Floats,
    pulls: Floats,
    key: np.uint64,
    marks: Integers,
    errors: Floats,
) -> None:
    """One token of SA-SRRW on scalars, f_i(x) = (x - pulls_i)^2 / 2, from 0: `errors` (C,) x^2 after each of `marks`.

    Args:
        a, b: visit t counts for (t + 2)^-a of all, below 1, and steps with (t + 2)^-b.
        pulls: `(n,)`, 0 in the mean by the target, so that 0 is the optimum.
    """
    counts, total = np.exp(log_target), float(len(log_target))
    excesses = np.zeros(len(counts))
    x, mark, node = 0.0, 0, int(uniform(key, 0) * len(counts))
    for visit in range(marks[-1]):
        x -= (visit + 2.0) ** -b * (x - pulls[node])
        gamma = (visit + 2.0) ** -a
        # What counts less is not scaled down, but what is new up: factors common to all counts do not matter.
        total /= 1 - gamma
        counts[node] += gamma * total
        excesses[node] = excess(counts[node], log_target[node])
        if total > 1e200:
            total /= 1e200
            for i in range(len(counts)):
                counts[i] /= 1e200
                excesses[i] = excess(counts[i], log_target[i])
        while mark < len(marks) and marks[mark] == visit + 1:
            errors[mark] = x * x
            mark += 1
        s, e = starts[node], starts[node + 1]
        u = uniform(key, visit + 1)
        chosen = hop(SELF_REPELLENT, alpha, neighbors[s:e], node, NOWHERE, widths[s:e], log_rates[s:e], excesses, u)
        node = node if chosen == STAY else neighbors[s + chosen]
