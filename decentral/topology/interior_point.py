"""A linear function minimized over a convex set that is known by its logarithmic barrier: Newton's method along the
central path (Boyd and Vandenberghe 2004, Convex Optimization, algorithm 11.1).

It solves the small semidefinite programs of mixing weights without a package for them. Each point of the path is unique
and found by a smooth iteration, so machines that round differently come to the same weights up to their rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve

from decentral.topology.stochastic import Floats, Integers

GROWTH = 4.0
"""From one point of the path to the next, the barrier's weight shrinks so."""

CENTERED = 1e-3
"""A point is on the path when Newton's method expects to gain less than this."""

STEPS = 100
"""Newton steps at one point; a handful is usual, and what rounding allows is reached long before."""

SHORTEST = 1e-10
"""A Newton step that must be cut down to this share is lost in rounding."""

RIDGE = 1e-13
"""Added to the scaled curvature, which rounding may make singular where many points are nearly as good."""


class Barrier(NamedTuple):
    """A self-concordant barrier of a convex set of points `(d,)`."""

    value: Callable[[Floats], float]  # infinite outside the set
    derivatives: Callable[[Floats], tuple[Floats, Floats]]  # gradient (d,) and Hessian (d, d), inside
    parameter: float  # on the path the cost is within parameter / t of the least


def minimized(cost: Floats, barrier: Barrier, start: Floats, gap: float) -> Floats:
    """The point `(d,)` of the set where `cost @ point` is within `gap` of the least.

    Args:
        cost: `(d,)`.
        barrier: of the set.
        start: a point inside the set.
        gap: in units of the cost.
    """
    point, t = start, 1.0
    while barrier.parameter / t > gap:
        t *= GROWTH
        point = _centered(t * cost, barrier, point)
    return point


def between_edges(vectors: Floats, values: Floats, edges: Integers) -> Floats:
    """`(E, E)`: A^T V diag(values) V^T A, where A `(n, E)` has the column e_i - e_j for each of the edges `(E, 2)`."""
    differences = vectors[edges[:, 0]] - vectors[edges[:, 1]]
    return np.asarray((differences * values) @ differences.T)


def along_edges(vectors: Floats, values: Floats, edges: Integers) -> Floats:
    """`(E,)`: the diagonal of `between_edges`."""
    return np.asarray((vectors[edges[:, 0]] - vectors[edges[:, 1]]) ** 2 @ values)


def laplacian(edges: Integers, weights: Floats, nodes: int) -> Floats:
    """`(n, n)`: A diag(weights) A^T, for edges `(E, 2)`, each of which occurs once."""
    matrix = np.zeros((nodes, nodes))
    matrix[edges[:, 0], edges[:, 1]] = matrix[edges[:, 1], edges[:, 0]] = -weights
    matrix[np.diag_indices(nodes)] = -matrix.sum(axis=1)
    return matrix


def _centered(cost: Floats, barrier: Barrier, point: Floats) -> Floats:
    """Where `cost @ point` plus the barrier is least."""

    def total(at: Floats) -> float:
        return float(cost @ at) + barrier.value(at)

    value = total(point)
    for _ in range(STEPS):
        slope, curvature = barrier.derivatives(point)
        step = _newton(slope + cost, curvature)
        gain = -float((slope + cost) @ step)
        if gain < 2 * CENTERED:
            break
        length = 1.0
        while (there := total(point + length * step)) > value - gain * length / 4:
            length /= 2
            if length < SHORTEST:
                return point
        point, value = point + length * step, there
    return point


def _newton(slope: Floats, curvature: Floats) -> Floats:
    """-curvature^-1 slope, in units that make the curvature's diagonal 1: it grows without bound at the boundary."""
    scale = 1 / np.sqrt(curvature.diagonal())
    scaled = curvature * scale * scale[:, None] + RIDGE * np.eye(len(slope))
    return np.asarray(-scale * solve(scaled, scale * slope, assume_a="pos", check_finite=False))
