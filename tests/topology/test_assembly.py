"""Schedules from an experiment's section: matchings at random, MATCHA, cycles of graphs, and a file's own schedule."""

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.assembly import SCHEDULES, Family, topology_of
from decentral.topology.topology import Topology


def load(name: str, nodes: int, folder: Path = Path(), **options: Any) -> Topology:
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, folder)


def of(graphs: Any, nodes: int, weights: str = "metropolis", **options: Any) -> Topology:
    section = example_with(topology={"name": "mine.py", **options}).topology
    return topology_of(Family(graphs, "mine.py", weights=weights), section, nodes)


def refused(**options: Any) -> str:
    name, nodes, folder = options.pop("name", "ring"), options.pop("nodes", 8), options.pop("folder", Path())
    with pytest.raises(ConfigError) as caught:
        load(name, nodes, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


RANDOM = {"name": "random-matchings"}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 14), st.floats(0, 0.8), st.integers(0, 10_000), st.integers(0, 10**9))
def test_a_random_matching_pairs_neighbors_and_no_edge_could_be_added(
    nodes: int, density: float, seed: int, turn: int
) -> None:
    graph = nx.gnp_random_graph(nodes, density, seed=seed)
    graph.add_edges_from(nx.random_labeled_tree(nodes, seed=seed).edges)
    topology = of([graph], nodes, schedule=RANDOM | {"seed": seed})
    W = topology.schedule.matrix(turn).dense()
    edges = {(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(W, 1)), strict=True)}
    assert nx.is_maximal_matching(graph, edges)
    assert set(W[W > 0]) <= {0.5, 1.0}
    assert topology.schedule.kind == "symmetric"
    assert topology.schedule.period is None


def test_random_matchings_depend_on_seed_and_turn_alone() -> None:
    def drawn(seed: int, turns: list[int]) -> list[bytes]:
        schedule = load("torus", 16, schedule=RANDOM | {"seed": seed}).schedule
        by_turn = {turn: schedule.matrix(turn).dense().tobytes() for turn in turns}
        return [by_turn[turn] for turn in sorted(turns)]

    assert drawn(0, [0, 1, 2, 900]) == drawn(0, [900, 1, 2, 0])
    assert len(set(drawn(0, list(range(20))))) > 15
    assert drawn(0, [0, 1, 2]) != drawn(1, [0, 1, 2])


def test_every_edge_is_drawn_some_time_and_given_weights_stay() -> None:
    W = np.mean([load("ring", 8, schedule=RANDOM).schedule.matrix(turn).dense() for turn in range(100)], axis=0)
    assert all(W[i, (i + 1) % 8] > 0.1 for i in range(8))
    weighted = nx.path_graph(3)
    nx.set_edge_attributes(weighted, 0.25, "weight")
    drawn = of([weighted], 3, "given", schedule=RANDOM).schedule.matrix(0).dense()
    assert set(drawn[~np.eye(3, dtype=bool)]) == {0.0, 0.25}


def test_one_node_takes_every_schedule() -> None:
    for name in SCHEDULES:
        topology = load("complete", 1, schedule=name)
        assert topology.schedule.matrix(5).dense() == [[1.0]]


def test_matcha_has_a_weight_of_its_own() -> None:
    topology = load("ring", 8, schedule={"name": "matcha", "budget": 1})
    assert topology.row(0).weights == pytest.approx({0: 1 - 2 * 0.43613, 1: 0.43613, 7: 0.43613}, abs=1e-5)
    assert topology.schedule.kind == "symmetric"
    assert any(load("ring", 8, schedule="matcha").row(0, turn).sources == () for turn in range(20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "matcha", "weights": "metropolis"}, "found weights: metropolis; leave weights out"),
        ({"schedule": "matcha", "scaling": "lazy"}, "found scaling: lazy; leave scaling out"),
        ({"schedule": "matcha", "name": "equi_static"}, "topologies/equi_static.py means weights: given; use schedule"),
        (
            {"schedule": "matcha", "name": "directed_exponential"},
            "schedule: matcha pairs nodes and needs an undirected",
        ),
        ({"schedule": RANDOM, "name": "directed_exponential"}, "schedule: random-matchings pairs nodes and needs an"),
        ({"schedule": "matchings", "name": "directed_exponential"}, "schedule: matchings pairs nodes and needs an und"),
        ({"schedule": "matcha", "name": "base_k"}, "base_k.py has a schedule of its own, found schedule: matcha"),
        ({"schedule": RANDOM, "name": "equi_dyn"}, "equi_dyn.py has a schedule of its own, found schedule: random-mat"),
        ({"schedule": RANDOM, "weights": "uniform"}, "may leave nodes alone, and weights: uniform needs equal degrees"),
        ({"schedule": {"name": "matcha", "budget": 0}}, "found 0; required: a number, above 0, at most 1"),
        ({"schedule": {"name": "matcha", "budget": 1.01}}, "found 1.01; required: a number, above 0, at most 1"),
        ({"schedule": {"name": "matcha", "seed": -1}}, "found -1; required: an integer, at least 0"),
        ({"schedule": "matcha", "nodes": 501}, "at most 500 nodes"),
        ({"schedule": "macha"}, "unknown name 'macha'; did you mean 'matcha'?"),
        ({"schedule": "matchings", "weights": "fastest"}, "weights: fastest needs a graph that is connected in each"),
    ],
)
def test_what_a_schedule_does_not_go_with(options: dict[str, Any], message: str) -> None:
    assert message in refused(**options)


def test_graphs_in_turn() -> None:
    """A list of graphs is a cycle: none must be connected, all together must be, and nodes may be missing in one."""
    one, other = nx.Graph([(0, 1), (2, 3)]), nx.Graph([(1, 2)])
    topology = of([one, other], 4)
    assert topology.schedule.period == 2
    assert topology.edges == ((0, 1), (1, 2), (2, 3))
    assert topology.row(0, turn=0).weights == topology.row(0, turn=4).weights == {0: 0.5, 1: 0.5}
    assert topology.row(0, turn=3).weights == {0: 1.0}
    assert of([one, other], 4, scaling="lazy").row(0).weights == {0: 0.75, 1: 0.25}
    with pytest.raises(ConfigError, match=r"mine\.py returned a graph that is not connected"):
        of([one, nx.Graph([(0, 1)])], 4)
    with pytest.raises(ConfigError, match=r"mine\.py returned 5 nodes for nodes=4"):
        of([one, nx.Graph([(3, 4)])], 4)


def test_directed_graphs_in_turn_must_let_every_node_reach_every_other() -> None:
    there, back = nx.DiGraph([(0, 1), (1, 2)]), nx.DiGraph([(2, 0)])
    topology = of([there, back], 3, "column-stochastic")
    assert topology.schedule.kind == "column-stochastic"
    assert topology.row(2, turn=0).sources == (1,)
    assert topology.row(2, turn=1).to == (0,)
    assert of([there, nx.Graph([(0, 1), (1, 2)])], 3, "column-stochastic").schedule.period == 2
    with pytest.raises(ConfigError, match="not strongly connected: 3 strong components"):
        of([there, nx.DiGraph([(0, 2)])], 3, "column-stochastic")


OWN = """
import networkx as nx


def build(nodes, *, far: int = 1):
    return nx.circulant_graph(nodes, [1, far])


def schedule(turn, nodes, *, far: int = 1):
    {body}
"""


def test_a_schedule_of_the_users_own(tmp_path: Path) -> None:
    body = "step = far if turn % 3 == 2 else 1\n    return [(i, (i + step) % nodes) for i in range(0, nodes, 2)]"
    (tmp_path / "mine.py").write_text(OWN.format(body=body))
    topology = load("mine.py", 8, tmp_path, far=3)
    assert topology.schedule.period is None
    assert topology.neighbors(0) == (1, 3, 5, 7)
    assert topology.row(0, turn=10**9).sources == (1,)
    assert topology.row(0, turn=2).weights == {0: 0.5, 3: 0.5}
    assert topology.schedule.kind == "symmetric"
    assert load("mine.py", 8, tmp_path, far=3, scaling="lazy").row(0, 2).weights == {0: 0.75, 3: 0.25}
    assert "has a schedule of its own" in refused(name="mine.py", folder=tmp_path, schedule="matchings")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [(0, 2)]", "turn 0 of mine.py has the edge 0-2, which build(nodes) has not"),
        ("return 3", "turn 0 of mine.py is a int; a networkx graph, or edges as (i, j) or (i, j, weight), is required"),
        ("return [(0, 1, -1)]", "edge 0-1 of turn 0 of mine.py has weight -1"),
        ("return [(0, 1), (1, 99)]", "turn 0 of mine.py returned 9 nodes for nodes=8"),
        ("return 1 / (turn - 5)", "turn 0 of mine.py is a float"),
        ("return [] if turn < 5 else 1 / 0", "mine.py:10: ZeroDivisionError"),
    ],
)
def test_faults_of_a_schedule_of_the_users_own(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(OWN.format(body=body))
    assert message in refused(name="mine.py", folder=tmp_path)


def test_a_turn_that_is_less_than_those_before_it_is_refused_when_it_comes(tmp_path: Path) -> None:
    body = "return nx.DiGraph([(0, 1), (0, 7)]) if turn == 99 else nx.cycle_graph(nodes)"
    (tmp_path / "mine.py").write_text(OWN.format(body=body))
    topology = load("mine.py", 8, tmp_path, weights="column-stochastic")
    assert topology.schedule.kind == "symmetric"
    with pytest.raises(ConfigError, match="matrix of turn 99 is column-stochastic; those before it were symmetric"):
        topology.schedule.matrix(99)
