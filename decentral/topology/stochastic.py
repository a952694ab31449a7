"""What a mixing matrix must be: nonnegative, its columns summing to 1; and what it may be beyond that.

Columns that sum to 1 keep the sum of all nodes, which is what push-sum asks for. Rows that do so too make the matrix
doubly stochastic, so that the mean of all is a fixed point: plain gossip. Symmetric is what spectra are read from.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from decentral.errors import ConfigError

TOLERANCE = 1e-12
"""How far a sum may be from 1, and w_ij from w_ji."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


Kind = Literal["column-stochastic", "doubly-stochastic", "symmetric"]
"""What a matrix is, each kind being all that stands before it too."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(W: csr_array) -> Kind:
    """What an `(n, n)` matrix is, to within `TOLERANCE`.

    Raises:
        ConfigError: not even column-stochastic and nonnegative; names the entry or column, and what was required.
    """
    entries = W.tocoo()
    _refuse(
        ~(np.isfinite(entries.data) & (entries.data >= 0)),
        lambda at: (
            f"edge {entries.col[at]}-{entries.row[at]} has mixing weight {entries.data[at]:.6g}; "
            "required: finite and not negative"
        ),
    )
    columns = row_sums(W.T.tocsr())
    _refuse(
        np.abs(columns - 1) > TOLERANCE,
        lambda at: (
            f"column {at} of the mixing matrix sums to {columns[at]:.15g}; required: 1 within {TOLERANCE:g}; "
            "without a weight on its self-loop a node keeps exactly what remains"
        ),
    )
    if (np.abs(row_sums(W) - 1) > TOLERANCE).any():
        return "column-stochastic"
    return "doubly-stochastic" if (abs(W - W.T).data > TOLERANCE).any() else "symmetric"


def row_sums(W: csr_array) -> Floats:
    """`(n,)`. Added pairwise: one after the other, the sum of 100,000 weights is off by more than `TOLERANCE`."""
    sums = np.zeros(W.shape[0])
    filled = np.flatnonzero(np.diff(W.indptr))
    if len(filled):
        sums[filled] = np.add.reduceat(W.data, W.indptr[filled])
    return sums


def _refuse(bad: NDArray[np.bool_], message: Callable[[int], str]) -> None:
    if bad.any():
        raise ConfigError(message(int(bad.argmax())))
