"""W_s = (1 - s) I + s W in place of a mixing matrix W: the same edges, bolder or more timid.

Lazy is s = 1/2, which makes every eigenvalue nonnegative. Optimal is s* = 2 / ((1 - l_2) + (1 - l_n)), which makes l_2
and -l_n equal and with it max(|l_2|, |l_n|) least; or the largest s that leaves no node a negative weight of its own,
where that is smaller.
"""

import numpy as np
from scipy.sparse.csgraph import connected_components

from decentral.errors import ConfigError
from decentral.topology.analysis import spectrum
from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import Floats


def scaled(matrix: MixingMatrix, scaling: str | float) -> MixingMatrix:
    """W_s.

    Args:
        matrix: W.
        scaling: none, lazy, optimal, or s itself.

    Raises:
        ConfigError: optimal of what has no real spectrum or is not connected, or an s that makes weights negative.
    """
    if scaling == "none":
        return matrix
    own = matrix.sparse.diagonal()
    if scaling == "optimal":
        factor = min(_optimal(matrix), _largest(own))
    elif scaling == "lazy":
        factor = 0.5
    else:
        factor = float(scaling)
        _check(factor, own)
    entries = (matrix.sparse * factor).tocsr()
    entries.setdiag(np.maximum(1 - factor * (1 - own), 0.0))
    return MixingMatrix(entries)


def _optimal(matrix: MixingMatrix) -> float:
    if matrix.kind != "symmetric":
        raise ConfigError(
            f"scaling: optimal comes from the real spectrum of symmetric weights, found {matrix.kind} ones; use lazy "
            "or a number"
        )
    if connected_components(matrix.sparse, directed=False, return_labels=False) > 1:
        raise ConfigError(
            "scaling: optimal needs all nodes connected in each turn, found a turn where they are not; use lazy or a "
            "number"
        )
    found = spectrum(matrix)
    return 2 / ((1 - found.second) + (1 - found.last))


def _largest(own: Floats) -> float:
    """The largest s that leaves no own weight negative."""
    return float(1 / (1 - own.min())) if own.min() < 1 else np.inf


def _check(factor: float, own: Floats) -> None:
    if factor > _largest(own) * (1 + 1e-12):
        node = int(own.argmin())
        raise ConfigError(
            f"scaling: {factor:g} leaves node {node} the weight {1 - factor * (1 - own[node]):.6g} of its own; at most "
            f"{_largest(own):.6g} is allowed here"
        )
