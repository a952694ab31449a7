"""The variance of the random walk of n_W on a static, symmetric W: v(gamma) = sum_k u_ik^2 l_k^2 / (1 - gamma l_k^2).

u_ik are the eigenvectors; the mean over the nodes has 1/n in place of u_ik^2. On large graphs the eigenvalue 1 is taken
out, which adds 1 / (n (1 - gamma)) to every node, and the rest is estimated by Lanczos quadrature: from random vectors
for the mean (Ubaru, Chen and Saad 2017, stochastic Lanczos quadrature), from a node's own unit vector for that node.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh, eigh_tridiagonal, eigvalsh
from scipy.sparse import csr_array

from decentral.topology.lanczos import tridiagonal
from decentral.topology.stochastic import Floats, row_sums

OF_SUSPECTS = "worst node: of the 8 that average over the fewest others at first"

Variance = Callable[[float], tuple[float, float | None]]
"""gamma -> the walk's variance: the mean over the nodes, and of the worst node."""

PROBES = 8
"""Random vectors of the estimate, at least."""

PROBED_ENTRIES = 65_536
"""So many entries they have together, at least: the fewer nodes, the more noise is in a vector."""

SUSPECTS = 8
"""Nodes whose own variance is found: those whose averages over a few turns rest on the fewest others."""

CUBED_ENTRIES = 30_000_000
"""Multiplications that W^3 may take to find those of three turns; else one turn has to do."""

EXACT_NODES = 1000
"""Up to here all eigenvectors are computed too, so that all nodes are known."""

STEPS = 150
"""Of Lanczos: at gamma = 0.999 the quadrature is within 1e-4 of its limit."""


def exact(W: csr_array) -> tuple[Variance, str]:
    """From all eigenvalues; single nodes from all eigenvectors up to `EXACT_NODES`."""
    if W.shape[0] > EXACT_NODES:
        return _exact_mean(W)
    values, vectors = eigh(W.toarray(), driver="evd")
    squares, shares = values**2, vectors**2

    def variance(gamma: float) -> tuple[float, float | None]:
        nodes = shares @ _walk(squares, gamma)
        return float(nodes.mean()), float(nodes.max())

    return variance, "n_W from all eigenvalues of W, exactly"


def _exact_mean(W: csr_array) -> tuple[Variance, str]:
    squares, suspects = eigvalsh(W.toarray()) ** 2, _Forms(W, _suspects(W))
    n = len(squares)

    def variance(gamma: float) -> tuple[float, float | None]:
        mean = float(_walk(squares, gamma).mean())
        return mean, max(mean, 1 / (n * (1 - gamma)) + float(suspects(gamma).max()))

    return variance, f"n_W from all eigenvalues of W, exactly; {OF_SUSPECTS}"


def estimated(W: csr_array) -> tuple[Variance, str]:
    """From random vectors of a fixed seed, and from the nodes that are most likely the worst."""
    n = int(W.shape[0])
    probes = max(PROBES, PROBED_ENTRIES // n)
    forms = _Forms(W, np.concatenate([_random(n, probes), _suspects(W)], axis=1))

    def variance(gamma: float) -> tuple[float, float | None]:
        found, ones = forms(gamma), 1 / (n * (1 - gamma))
        mean = ones + float(found[:probes].mean()) / n
        return mean, max(mean, ones + float(found[probes:].max()))

    def error(gamma: float) -> str:
        return f"{100 * float(np.std(forms(gamma)[:probes] / n, ddof=1) / probes**0.5) / variance(gamma)[0]:.1g} %"

    return variance, (
        f"n_W by Lanczos quadrature of {STEPS} steps from {probes} random vectors (standard error {error(0.9)} at "
        f"gamma 0.9, {error(0.999)} at 0.999); {OF_SUSPECTS}"
    )


class _Forms:
    """gamma -> z^T W^2 (1 - gamma W^2)^-1 z for each of the columns z of mean 0 of `(n, p)`."""

    def __init__(self, W: csr_array, columns: Floats) -> None:
        run = tridiagonal(W, columns, STEPS)
        self._lengths = np.einsum("np,np->p", columns, columns)
        self._measures = [_measure(run.diagonal[:, p], run.off[:, p]) for p in range(columns.shape[1])]

    def __call__(self, gamma: float) -> Floats:
        return np.asarray(
            self._lengths * [float(weights @ _walk(values**2, gamma)) for values, weights in self._measures]
        )


def _walk(squares: Floats, gamma: float) -> Floats:
    return np.asarray(squares / (1 - gamma * squares))


def _random(n: int, probes: int) -> Floats:
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, probes))
    return np.asarray(signs - signs.mean(axis=0))


def _suspects(W: csr_array) -> Floats:
    """`(n, SUSPECTS)`: unit vectors, less their mean."""
    n, degree = int(W.shape[0]), int(np.diff(W.indptr).max())
    turns = csr_array(W @ W @ W) if W.nnz * degree**2 <= CUBED_ENTRIES else W
    units = np.full((n, SUSPECTS), -1 / n)
    units[np.argsort(-_concentration(turns), kind="stable")[:SUSPECTS], np.arange(SUSPECTS)] += 1
    return units


def _concentration(A: csr_array) -> Floats:
    """`(n,)`: the sum of squares of each row."""
    return row_sums(csr_array((A.data**2, A.indices, A.indptr), shape=A.shape))


def _measure(diagonal: Floats, off: Floats) -> tuple[Floats, Floats]:
    """The nodes and weights of the quadrature."""
    values, vectors = eigh_tridiagonal(diagonal, off[:-1])
    return values, vectors[0] ** 2
