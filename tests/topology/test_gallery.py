import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery

AT = ("topology",)
SIZES = (1, 2, 3, 4, 8, 9, 16, 31, 32)

NOT_FOR: dict[str, set[int]] = {
    "davis": set(SIZES) - {32},
    "fat_tree": set(SIZES) - {2, 16},
    "florentine": set(SIZES),
    "grid": {31},
    "hypercube": {3, 9, 31},
    "karate": set(SIZES),
    "les_miserables": set(SIZES),
    "random_regular": {1, 2, 3, 4},
    "small_world": {1, 2, 3, 4},
    "torus": {31},
}
"""The sizes that a graph does not come in."""


def load(name, nodes, folder=Path(), weights="metropolis", **options):
    return gallery.load(example_with(topology={"name": name, "weights": weights, **options}).topology, nodes, folder)


def refused(name, nodes=8, folder=Path(), weights="metropolis", **options):
    with pytest.raises(ConfigError) as caught:
        load(name, nodes, folder, weights, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.at is not None
    assert caught.value.at[:1] == AT
    return caught.value


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", gallery.names())
@pytest.mark.parametrize("nodes", SIZES)
def test_every_shipped_file(name, nodes):
    if nodes in NOT_FOR.get(name, ()):
        assert f"nodes={nodes}" in str(refused(name, nodes))
        return
    topology = load(name, nodes, weights=None)
    assert topology.nodes == nodes
    W = topology.schedule.matrix(0).dense()
    np.testing.assert_allclose(W.sum(axis=0), 1, rtol=0, atol=1e-12)
    assert topology.edges == load(name, nodes, weights=None).edges


@pytest.mark.parametrize("name", gallery.names())
def test_every_shipped_file_says_what_it_is(name):
    assert len(gallery.summary(gallery.find(name, Path()))) > 20


def test_the_gallery():
    assert gallery.names() == (
        "base_k",
        "caveman",
        "complete",
        "davis",
        "directed_exponential",
        "double_binary_trees",
        "epidemic",
        "equi_dyn",
        "equi_static",
        "erdos_renyi",
        "exponential",
        "fat_tree",
        "florentine",
        "geographic",
        "grid",
        "hierarchical",
        "hypercube",
        "k_peer_exponential",
        "karate",
        "les_miserables",
        "one_peer_exponential",
        "path",
        "racks",
        "random_regular",
        "ring",
        "small_world",
        "star",
        "torus",
        "tree",
        "two_cliques",
    )


@pytest.mark.parametrize(
    ("name", "nodes", "options", "edges"),
    [
        ("ring", 4, {}, [(0, 1), (0, 3), (1, 2), (2, 3)]),
        ("torus", 6, {}, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (3, 5), (4, 5)]),
        ("torus", 4, {"rows": 1}, [(0, 1), (0, 3), (1, 2), (2, 3)]),
        ("star", 4, {}, [(0, 1), (0, 2), (0, 3)]),
        ("tree", 6, {}, [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)]),
        ("tree", 4, {"branching": 1}, [(0, 1), (1, 2), (2, 3)]),
        ("hypercube", 4, {}, [(0, 1), (0, 2), (1, 3), (2, 3)]),
    ],
)
def test_edges(name, nodes, options, edges):
    assert list(load(name, nodes, **options).edges) == edges


def test_the_exponential_graph_joins_powers_of_two():
    assert load("exponential", 16).neighbors(0) == (1, 2, 4, 8, 12, 14, 15)


def test_random_graphs_follow_their_options():
    assert {load("random_regular", 20, degree=3).graph.degree(i) for i in range(20)} == {3}
    assert load("random_regular", 20, seed=1).edges != load("random_regular", 20, seed=2).edges
    assert len(load("erdos_renyi", 6, p=1).edges) == 15
    assert load("small_world", 10, neighbors=2, rewire=0).edges == load("ring", 10).edges


@pytest.mark.parametrize(
    ("name", "nodes", "options", "message"),
    [
        ("torus", 8, {"rows": 3}, "rows=3 does not divide nodes=8"),
        ("torus", 8, {"rows": 0}, "rows=0 does not divide"),
        ("torus", 7, {}, "nodes=7 is prime"),
        ("random_regular", 9, {"degree": 3}, "both odd"),
        ("random_regular", 8, {"degree": 1}, "none of 100 graphs"),
        ("erdos_renyi", 8, {"p": 1.5}, "p=1.5; a probability"),
        ("erdos_renyi", 50, {"p": 0.001}, "none of 100 graphs"),
        ("small_world", 8, {"neighbors": 3}, "neighbors=3"),
        ("small_world", 8, {"rewire": -0.1}, "rewire=-0.1"),
        ("tree", 8, {"branching": 0}, "branching=0"),
    ],
)
def test_options_that_do_not_fit(name, nodes, options, message):
    assert message in str(refused(name, nodes, **options))


def test_a_small_world_that_stays_disconnected(monkeypatch):
    def give_up(*arguments, **options):
        raise nx.NetworkXError("Maximum number of tries exceeded")

    monkeypatch.setattr(nx, "connected_watts_strogatz_graph", give_up)
    assert "none of 100 graphs with neighbors=4" in str(refused("small_world"))


def test_unknown_names_and_options():
    assert str(refused("rnig")) == "the gallery has no topology 'rnig'; did you mean 'ring'?"
    assert "known: base_k, caveman, complete" in str(refused("zzzzz"))
    unknown = refused("random_regular", degre=3)
    assert str(unknown) == "unknown key; did you mean 'degree'?"
    assert unknown.at == ("topology", "degre")
    assert "it takes no options" in str(refused("ring", degree=3))
    ill_typed = refused("random_regular", degree="four")
    assert "found 'four'" in str(ill_typed)
    assert ill_typed.at == ("topology", "degree")
    assert "weights: uniform needs a regular graph" in str(refused("star", weights="uniform"))


def test_a_users_copy_of_a_shipped_file_is_the_same_graph(tmp_path, monkeypatch):
    shipped = gallery.find("torus", Path())
    written(tmp_path, "mine.py", shipped.read_text())
    loaded_before = set(sys.modules)
    own = load("mine.py", 12, tmp_path, rows=3)
    assert own.edges == load("torus", 12, rows=3).edges
    assert set(sys.modules) == loaded_before
    monkeypatch.chdir(tmp_path)
    assert load("./mine.py", 12, Path("/")).edges == load("torus", 12).edges
    assert load(str(tmp_path / "mine.py"), 12).name == str(tmp_path / "mine.py")


def test_two_files_of_one_name_do_not_meet(tmp_path):
    for folder, graph in (("a", "path"), ("b", "cycle")):
        (tmp_path / folder).mkdir()
        text = f"import networkx as nx\n\n\ndef build(nodes):\n    return nx.{graph}_graph(nodes)\n"
        written(tmp_path / folder, "graph.py", text)
    assert len(load("a/graph.py", 5, tmp_path).edges) == 4
    assert len(load("b/graph.py", 5, tmp_path).edges) == 5


def test_data_files_take_no_options(tmp_path):
    nx.write_graphml(nx.cycle_graph(8), tmp_path / "ring.graphml")
    nx.write_edgelist(nx.cycle_graph(8), tmp_path / "ring.txt", data=False)
    for name in ("ring.graphml", "ring.txt"):
        assert load(name, 8, tmp_path).edges == load("ring", 8).edges
        error = refused(name, 8, tmp_path, degree=3)
        assert str(error) == f"unknown key; {name} is a data file and takes no options"
        assert error.at == ("topology", "degree")
        assert f"{name} holds 8 nodes for nodes=9" in str(refused(name, 9, tmp_path))


def test_given_weights_from_a_file(tmp_path):
    written(tmp_path, "pair.edgelist", "0 1 0.25\n")
    assert load("pair.edgelist", 2, tmp_path, weights="given").row(0).weights == {0: 0.75, 1: 0.25}
    written(tmp_path, "loop.edgelist", "0 1 0.25\n1 1 -0.75\n")
    message = str(refused("loop.edgelist", 2, tmp_path, weights="given"))
    assert "edge 1-1 of loop.edgelist has weight -0.75" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has no function 'build'"),
        ("def biuld(nodes): ...\n", "did you mean 'biuld'?"),
        ("def build(nodes:\n", "mine.py:1: SyntaxError"),
        ("import nothing_of_this_name\n", "mine.py"),
        ("def build(nodes):\n    return 1 / 0\n", "mine.py:2: ZeroDivisionError"),
        ("def build(): ...\n", "TypeError"),
        ("def build(nodes): ...\n", "mine.py returned a NoneType"),
        ("import networkx as nx\ndef build(nodes): return nx.path_graph(7)\n", "mine.py returned 7 nodes for nodes=8"),
        ("import networkx as nx\ndef build(nodes): return nx.DiGraph(nx.cycle_graph(nodes))\n", "found a directed one"),
        ("import networkx as nx\ndef build(nodes): return nx.path_graph('abcdefgh')\n", "a node labeled 'a'"),
        ("import networkx as nx\ndef build(nodes): return nx.empty_graph(nodes)\n", "8 components"),
    ],
)
def test_faults_in_a_users_file(tmp_path, text, message):
    written(tmp_path, "mine.py", text)
    assert message in str(refused("mine.py", 8, tmp_path))


def test_files_that_are_not_there(tmp_path):
    assert f"no file mine.py in {tmp_path}" in str(refused("mine.py", 8, tmp_path))
    assert "a topology file is one of .py, .graphml" in str(refused("graphs/mine.dot", 8, tmp_path))


def test_summaries_do_not_run_the_file(tmp_path):
    assert gallery.summary(written(tmp_path, "a.py", '"""One.\n\nTwo."""\nraise SystemExit\n')) == "One."
    assert gallery.summary(written(tmp_path, "b.py", "")) == ""
    assert gallery.summary(written(tmp_path, "c.txt", "0 1\n")) == ""
    with pytest.raises(ConfigError, match="SyntaxError"):
        gallery.summary(written(tmp_path, "d.py", "def"))
