"""A graph of groups as a graph of nodes: kron(W, D) + kron(I, I - D), and edges between members of one place."""

import networkx as nx
import numpy as np
import pytest

from decentral.loading import example_with
from decentral.topology.assembly import Family, topology_of
from decentral.topology.groups import members


@pytest.mark.parametrize("schedule", ["static", "matchings"])
@pytest.mark.parametrize(("size", "linked"), [(1, 1), (3, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("graph", [nx.cycle_graph(5), nx.star_graph(4), nx.empty_graph(1)], ids=["ring", "star", "one"])
def test_members_of_linked_places_mix_as_their_groups_do(
    graph: nx.Graph, size: int, linked: int, schedule: str
) -> None:
    section = example_with(topology={"name": "test", "schedule": schedule}).topology
    groups = topology_of(Family([graph], "test"), section, len(graph))
    nodes = members(groups, size, linked)
    places = np.diag([1.0] * linked + [0.0] * (size - linked))
    assert nodes.schedule.period == groups.schedule.period
    for turn in range(groups.schedule.period):
        expected = np.kron(groups.schedule.matrix(turn).dense(), places) + np.kron(
            np.eye(groups.nodes), np.eye(size) - places
        )
        np.testing.assert_array_equal(nodes.schedule.matrix(turn).dense(), expected)
        assert nodes.schedule.matrix(turn).kind == "symmetric"
        for node in range(nodes.nodes):
            group, place = divmod(node, size)
            there = groups.row(group, turn).sources if place < linked else ()
            assert nodes.row(node, turn).sources == tuple(other * size + place for other in there)
    for node in range(nodes.nodes):
        group, place = divmod(node, size)
        there = groups.neighbors(group) if place < linked else ()
        assert nodes.neighbors(node) == tuple(other * size + place for other in there)
