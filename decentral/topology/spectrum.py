"""The spectrum of a mixing matrix: dense up to `EXACT_NODES` nodes, sparse solvers above.

A symmetric matrix has the real eigenvalues 1 = l_1 > l_2 >= ... >= l_n > -1. Any other has complex ones, of which the
second largest modulus says how fast W^t converges in the end, and singular values, of which the second largest says how
much one step shrinks the distance to the mean in the worst case. The two differ where W is not normal.
"""

from math import exp, log
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigvals, eigvalsh
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

from decentral.topology.lanczos import MOST_STEPS, extremes
from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import Floats

EXACT_NODES = 2000
"""Up to here all eigenvalues and the exact diameter are computed."""

EXACT_COMPLEX_NODES = 500
"""Up to here all eigenvalues of a matrix that is not symmetric are computed."""


WORK = 4_000_000_000
"""Multiplications that Lanczos may take."""


class Bound(NamedTuple):
    """A number, or where it was not found, one that it is not below."""

    value: float
    found: bool


class Spectrum(NamedTuple):
    second: float  # l_2
    last: float  # l_n
    gap: float  # 1 - max(|l_2|, |l_n|)


def spectrum(matrix: MixingMatrix) -> Spectrum:
    """l_2, l_n and the gap of a symmetric mixing matrix; a single node has l_2 = l_n = 0 and gap 1.

    Above `EXACT_NODES` nodes l_2 is accurate to 1e-8 and l_n to 1e-5.
    """
    if matrix.n == 1:
        return Spectrum(0.0, 0.0, 1.0)
    if matrix.n <= EXACT_NODES:
        values = eigvalsh(matrix.dense())
        second, last = float(values[-2]), float(values[0])
    else:
        second, last = _ends(matrix.sparse)
    return Spectrum(second, last, 1 - max(abs(second), abs(last)))


def second_modulus(A: LinearOperator) -> float:
    """The largest |eigenvalue| of an `(n, n)` operator from which the eigenvalue 1 was taken, such as W - J.

    Above `EXACT_COMPLEX_NODES` nodes to 1e-8, or, where the solver does not converge, from the growth of 1,000 steps.
    """
    n = int(A.shape[0])
    if n <= EXACT_COMPLEX_NODES:
        return float(np.abs(eigvals(A @ np.eye(n))).max())
    try:
        values = eigs(A, k=1, which="LM", v0=start(n), ncv=60, maxiter=50, tol=1e-8, return_eigenvectors=False)
    except ArpackNoConvergence:
        return _growth(A)
    return float(np.abs(values[0]))


def largest_singular_value(A: LinearOperator, cost: int) -> Bound:
    """||A||_2 of an `(n, n)` operator that takes any vector to one of mean 0: above `EXACT_COMPLEX_NODES` by Lanczos.

    Args:
        cost: multiplications of A times a vector.
    """
    n = int(A.shape[0])
    if n <= EXACT_COMPLEX_NODES:
        return Bound(float(np.linalg.norm(A @ np.eye(n), 2)), True)

    def squared(x: Floats) -> Floats:
        return np.asarray(A.rmatvec(A.matvec(x.ravel())).reshape(x.shape))

    value, found = largest_eigenvalue(LinearOperator((n, n), matvec=squared, matmat=squared, dtype=float), 2 * cost)
    return Bound(value**0.5, found)


def largest_eigenvalue(A: LinearOperator, cost: int) -> Bound:
    """Of a positive semidefinite `(n, n)` operator whose images have mean 0, to 1e-8, or what Lanczos reaches of it."""
    n = int(A.shape[0])
    if n <= EXACT_COMPLEX_NODES:
        return Bound(max(float(eigvalsh(A @ np.eye(n))[-1]), 0.0), True)
    reached = extremes(A, start(n), max(100, min(MOST_STEPS, WORK // cost)))
    return Bound(max(reached.second, 0.0), reached.second_found)


def start(n: int) -> Floats:
    """`(n,)`: where iterations start, the same in every process."""
    return np.random.default_rng(0).standard_normal(n)


def _ends(W: csr_array) -> tuple[float, float]:
    """Lanczos. Where it is slow the gap is tiny, hence the graph has small cuts, hence sparse LU is cheap."""
    v0 = start(int(W.shape[0]))
    found = extremes(W, v0)
    if found.second_found:
        return found.second, found.last
    values = eigsh(W.tocsc(), k=2, sigma=1 + 1e-8, v0=v0, return_eigenvectors=False)
    return float(values.min()), found.last


def _growth(A: LinearOperator) -> float:
    """The mean factor per step in the second half of 1,000 steps."""
    x, logarithms = start(int(A.shape[0])), []
    for _ in range(1000):
        x = A.matvec(x)
        norm = float(np.linalg.norm(x))
        if norm == 0:
            return 0.0
        logarithms.append(log(norm))
        x = x / norm
    return exp(sum(logarithms[500:]) / 500)
