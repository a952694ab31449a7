"""Lanczos on a symmetric mixing matrix, beside the constant vector: extreme eigenvalues and quadratic forms.

From a start z of mean 0 it makes a tridiagonal T with z^T f(W) z ~ |z|^2 e_1^T f(T) e_1, exact for polynomials of
degree 2 m - 1 after m steps (Golub and Meurant 2010, Matrices, moments and quadrature, chapter 6). Nothing is
orthogonalized again: copies of eigenvalues that have converged do no harm to either use (Cullum and Willoughby 1985).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator

from decentral.topology.stochastic import Floats

NEGLIGIBLE = 1e-12
"""Below it a remainder is rounding error, and its run has found all that its start reaches."""

CHECK_EVERY = 200
"""Steps between two looks at whether a run may end."""

SECOND_WITHIN, LAST_WITHIN = 1e-8, 1e-5
"""How accurately the second and the last eigenvalue are wanted."""

MOST_STEPS = 2000


class Tridiagonal(NamedTuple):
    """Those of p runs at once, after m steps."""

    diagonal: Floats  # (m, p)
    off: Floats  # (m, p): row k couples steps k and k + 1; the last row is what remains


class Extremes(NamedTuple):
    second: float
    second_found: bool  # False: `second` is a lower bound
    last: float


def tridiagonal(
    W: csr_array | LinearOperator, starts: Floats, steps: int, enough: Callable[[Tridiagonal], bool] | None = None
) -> Tridiagonal:
    """Runs Lanczos from the columns of `starts` `(n, p)`, which have mean 0.

    Args:
        W: symmetric; it takes vectors of mean 0 to such.
        starts: not all zero.
        steps: at most.
        enough: asked every `CHECK_EVERY` steps whether to end.
    """
    scales = np.linalg.norm(starts, axis=0)
    current, before = starts / np.where(scales > 0, scales, 1), np.zeros_like(starts)
    diagonal, off = np.zeros((steps, starts.shape[1])), np.zeros((steps, starts.shape[1]))
    for step in range(steps):
        ahead = W @ current
        ahead -= ahead.mean(axis=0)
        diagonal[step] = np.einsum("np,np->p", current, ahead)
        ahead -= diagonal[step] * current
        ahead -= (off[step - 1] if step else 0) * before
        off[step] = np.linalg.norm(ahead, axis=0)
        off[step, off[step] < NEGLIGIBLE] = 0
        before, current = current, ahead * np.divide(1, off[step], out=np.zeros_like(off[step]), where=off[step] > 0)
        so_far = Tridiagonal(diagonal[: step + 1], off[: step + 1])
        if not off[step].any() or (enough is not None and (step + 1) % CHECK_EVERY == 0 and enough(so_far)):
            return so_far
    return Tridiagonal(diagonal, off)


def extremes(W: csr_array | LinearOperator, start: Floats, steps: int = MOST_STEPS) -> Extremes:
    """The second and the last eigenvalue of a symmetric mixing matrix, from a start `(n,)`."""
    run = tridiagonal(W, (start - start.mean())[:, None], steps, _both_found)
    (last, _), (second, remains) = _ends(run)
    return Extremes(second, remains <= SECOND_WITHIN, last)


def _both_found(run: Tridiagonal) -> bool:
    (_, last_remains), (_, second_remains) = _ends(run)
    return last_remains <= LAST_WITHIN and second_remains <= SECOND_WITHIN


def _ends(run: Tridiagonal) -> list[tuple[float, float]]:
    """The smallest and the largest Ritz value, each with the norm of its residual."""
    diagonal, off = run.diagonal[:, 0], run.off[:, 0]
    ends = []
    for index in (0, len(diagonal) - 1):
        value, vector = eigh_tridiagonal(diagonal, off[:-1], select="i", select_range=(index, index))
        ends.append((float(value[0]), float(off[-1] * abs(vector[-1, 0]))))
    return ends
