"""What every mixing matrix must be: nonnegative, symmetric and doubly stochastic."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from decentral.errors import ConfigError

TOLERANCE = 1e-12
"""How far a sum may be from 1, and w_ij from w_ji."""

Floats = NDArray[np.float64]


def check(W: csr_array) -> None:
    """Refuse an `(n, n)` matrix that is not nonnegative, symmetric and doubly stochastic, to within `TOLERANCE`.

    Raises:
        ConfigError: names the entry or row, the value found and what was required.
    """
    entries = W.tocoo()
    _refuse(
        ~(np.isfinite(entries.data) & (entries.data >= 0)),
        lambda at: (
            f"edge {entries.row[at]}-{entries.col[at]} has mixing weight {entries.data[at]:.6g}; "
            "required: finite and not negative"
        ),
    )
    for what, sums in (("row", row_sums(W)), ("column", row_sums(W.T.tocsr()))):
        _refuse_sum(what, sums)
    asymmetry = abs(W - W.T).tocoo()
    _refuse(
        asymmetry.data > TOLERANCE,
        lambda at: (
            f"edge {asymmetry.row[at]}-{asymmetry.col[at]} has mixing weights that differ by "
            f"{asymmetry.data[at]:.6g} between its two directions; required: equal within {TOLERANCE:g}"
        ),
    )


def row_sums(W: csr_array) -> Floats:
    """`(n,)`. Added pairwise: one after the other, the sum of 100,000 weights is off by more than `TOLERANCE`."""
    sums = np.zeros(W.shape[0])
    filled = np.flatnonzero(np.diff(W.indptr))
    if len(filled):
        sums[filled] = np.add.reduceat(W.data, W.indptr[filled])
    return sums


def _refuse_sum(what: str, sums: Floats) -> None:
    _refuse(
        np.abs(sums - 1) > TOLERANCE,
        lambda at: (
            f"{what} {at} of the mixing matrix sums to {sums[at]:.15g}; required: 1 within {TOLERANCE:g}; "
            "without a weight on its self-loop a node keeps exactly what remains"
        ),
    )


def _refuse(bad: NDArray[np.bool_], message: Callable[[int], str]) -> None:
    if bad.any():
        raise ConfigError(message(int(bad.argmax())))
