"""Newton's method along the central path: barriers against their own differences, and a linear program by hand."""

import networkx as nx
import numpy as np
import pytest

from decentral.topology import fastest_mixing, matcha
from decentral.topology.interior_point import Barrier, laplacian, minimized
from decentral.topology.matchings import matchings
from decentral.topology.stochastic import Floats

GRAPH = nx.barbell_graph(4, 1)
EDGES = np.array([edge for matching in matchings(GRAPH) for edge in matching])
SIZES = np.array([len(matching) for matching in matchings(GRAPH)])


@pytest.mark.parametrize(
    ("barrier", "point"),
    [
        (fastest_mixing._barrier(EDGES, 9), np.append(np.linspace(0.05, 0.2, len(EDGES)), 1.1)),
        (matcha._barrier(EDGES, SIZES, 9, 0.5), np.append(np.linspace(0.3, 0.5, len(SIZES)), 0.01)),
    ],
    ids=["fastest", "matcha"],
)
def test_derivatives_are_those_of_the_value(barrier: Barrier, point: Floats) -> None:
    gradient, hessian = barrier.derivatives(point)
    for at in range(len(point)):
        step = np.zeros(len(point))
        step[at] = 1e-6
        slope = (barrier.value(point + step) - barrier.value(point - step)) / 2e-6
        assert gradient[at] == pytest.approx(slope, rel=1e-6, abs=1e-6)
        row = (barrier.derivatives(point + step)[0] - barrier.derivatives(point - step)[0]) / 2e-6
        np.testing.assert_allclose(hessian[at], row, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gap", [1e-2, 1e-5])
def test_a_corner_of_a_box(gap: float) -> None:
    def value(x: Floats) -> float:
        inside = np.concatenate([x, 1 - x])
        return -float(np.log(inside).sum()) if inside.min() > 0 else np.inf

    box = Barrier(value, lambda x: (1 / (1 - x) - 1 / x, np.diag(1 / (1 - x) ** 2 + 1 / x**2)), parameter=4)
    found = minimized(np.array([1.0, -2.0]), box, np.array([0.5, 0.5]), gap)
    assert -2 < found @ [1.0, -2.0] <= -2 + gap
    assert value(found) < np.inf


def test_outside_is_infinite() -> None:
    barrier = fastest_mixing._barrier(EDGES, 9)
    weights = np.full(len(EDGES), 0.1)
    assert barrier.value(np.append(weights, 1.1)) < np.inf
    for outside in (np.append(weights, 0.5), np.append(-weights, 1.1), np.append(4 * weights, 9.0)):
        assert barrier.value(outside) == np.inf


def test_the_laplacian_is_that_of_the_weighted_graph() -> None:
    weights = np.arange(1.0, len(EDGES) + 1)
    graph = nx.empty_graph(9)
    graph.add_weighted_edges_from((i, j, w) for (i, j), w in zip(EDGES.tolist(), weights.tolist(), strict=True))
    np.testing.assert_allclose(laplacian(EDGES, weights, 9), nx.laplacian_matrix(graph, nodelist=range(9)).toarray())
