"""The variance of the random walk of n_W from its covariance C, an `(n, n)` matrix: directed, periodic and drawn W.

With J = 11^T/n split off, C = J / (1 - gamma) + D, and over the turns

    D_t = gamma W_t D_{t-1} W_t^T + W_t W_t^T - J

Periodic: D repeats with the period, where with P = W_T ... W_1 (I - J)

    D_0 = gamma^T P D_0 P^T + Q,   Q = what D_0 = 0 becomes in a period

is a discrete Lyapunov equation, solved by doubling (Smith 1968). Drawn: D = gamma M(D) + M(I - J) with the map
M(D) = E[W D W^T], solved for all gamma at once on a Krylov basis (Arnoldi) of M from I - J.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import block_diag, csr_array, vstack

from decentral.topology.lanczos import NEGLIGIBLE
from decentral.topology.quadrature import Variance
from decentral.topology.stochastic import Floats

DOUBLINGS = 60
"""At most, which is 2^60 turns."""

BASIS = 80
"""Matrices of the Krylov basis at most."""

SAMPLED_ENTRIES = 2**22
"""So many entries of covariances are held at once for the mean over sampled turns."""


def lifted(turns: Sequence[csr_array]) -> tuple[Variance, str]:
    """The walk on a period of turns: the variance is the mean over the turns, its worst that of the worst node."""
    n = int(turns[0].shape[0])
    P = np.eye(n) - 1 / n
    for turn in turns:
        P = turn @ P

    @lru_cache(maxsize=1024)
    def variance(gamma: float) -> tuple[float, float | None]:
        D = _lyapunov(gamma ** (len(turns) / 2) * P, _roll(turns, np.zeros((n, n)), gamma)[-1])
        nodes = np.mean([np.diagonal(each) for each in _roll(turns, D, gamma)], axis=0) + 1 / (n * (1 - gamma))
        return float(nodes.mean()), float(nodes.max())

    over = "" if len(turns) == 1 else f", lifted over a period of {len(turns)} turns"
    return variance, f"n_W by the discrete Lyapunov equation{over}, exactly"


def expected(turns: Sequence[csr_array]) -> tuple[Variance, str]:
    """The walk on turns drawn alike and independently, of which `turns` are a sample."""
    n = int(turns[0].shape[0])
    sample = turns[: max(16, SAMPLED_ENTRIES // n**2)]
    diagonals, hessenberg = _arnoldi(sample, np.eye(n) - 1 / n)

    def variance(gamma: float) -> tuple[float, float | None]:
        size = len(hessenberg)
        resolvent = np.linalg.solve(np.eye(size) - gamma * hessenberg, hessenberg[:, 0])
        nodes = (n - 1) ** 0.5 * (resolvent @ diagonals) + 1 / (n * (1 - gamma))
        return float(nodes.mean()), float(nodes.max())

    return variance, f"n_W by the mean of the covariance map over {len(sample)} sampled turns, an estimate"


def _roll(turns: Sequence[csr_array], D: Floats, gamma: float) -> list[Floats]:
    """D after each of the turns."""
    rolled = []
    for turn in turns:
        inner = gamma * D + np.eye(len(D)) - 1 / len(D)
        D = turn @ (turn @ inner).T
        rolled.append(D)
    return rolled


def _lyapunov(A: Floats, Q: Floats) -> Floats:
    """X = A X A^T + Q = sum_k A^k Q A^kT."""
    for _ in range(DOUBLINGS):
        Q = Q + A @ Q @ A.T
        A = A @ A
        if np.abs(A).max() < NEGLIGIBLE:
            break
    return Q


def _arnoldi(turns: Sequence[csr_array], start: Floats) -> tuple[Floats, Floats]:
    """The diagonals `(m, n)` of an orthonormal basis, and M on it, `(m, m)`."""
    n, count = len(start), len(turns)
    stacked, blocks = csr_array(vstack(turns)), csr_array(block_diag(turns))

    def mean_map(D: Floats) -> Floats:
        once = (stacked @ D).reshape(count, n, n).transpose(0, 2, 1).reshape(count * n, n)
        return np.asarray((blocks @ once).reshape(count, n, n).mean(axis=0))

    basis = [start.ravel() / np.linalg.norm(start)] if n > 1 else [np.zeros(1)]
    H = np.zeros((BASIS + 1, BASIS))
    for column in range(BASIS):
        image = mean_map(basis[-1].reshape(n, n)).ravel()
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            for row, member in enumerate(basis):
                along = member @ image
                H[row, column] += along
                image = image - along * member
        H[column + 1, column] = np.linalg.norm(image)
        if H[column + 1, column] < NEGLIGIBLE or column == BASIS - 1:
            break
        basis.append(image / H[column + 1, column])
    size = len(basis)
    return np.array([np.diagonal(member.reshape(n, n)) for member in basis]), H[:size, :size]
