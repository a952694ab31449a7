import io
import json

import networkx as nx
import numpy as np
import pytest

import decentral.topology.graph_files as graph_files
from decentral.errors import ConfigError
from decentral.topology.graph_files import READERS, read

RING = nx.cycle_graph(6)

GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{}</graphml>'

BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
    + GRAPHML.format('<graph edgedefault="undirected"><node id="&i;"/></graph>')
)

EXTERNAL_ENTITY = '<!DOCTYPE g [<!ENTITY secret SYSTEM "file:///secret.txt">]>' + GRAPHML.format(
    '<graph edgedefault="undirected"><node id="&secret;"/></graph>'
)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path):
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read {path}: ")
    assert "; expected " in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def write_csv(graph, path):
    rows = [",".join(map(str, [i, j, *data.values()])) for i, j, data in graph.edges(data=True)]
    path.write_text("\n".join(rows) + "\n")


WRITERS = {
    ".graphml": nx.write_graphml,
    ".gml": nx.write_gml,
    ".edgelist": nx.write_edgelist,
    ".txt": nx.write_edgelist,
    ".csv": write_csv,
    ".npy": lambda graph, path: np.save(path, nx.to_numpy_array(graph)),
    ".json": lambda graph, path: path.write_text(json.dumps(nx.node_link_data(graph))),
}


@pytest.mark.parametrize("suffix", READERS)
def test_every_suffix_reads_what_networkx_writes(tmp_path, suffix):
    weighted = nx.cycle_graph(6)
    nx.set_edge_attributes(weighted, 0.25, "weight")
    for graph in (RING, weighted):
        WRITERS[suffix](graph, tmp_path / f"a{suffix}")
        found = read(tmp_path / f"a{suffix}")
        assert set(found) == set(range(6))
        assert not found.is_directed()
        assert {frozenset(edge) for edge in found.edges} == {frozenset(edge) for edge in graph.edges}
        assert all(found.edges[edge].get("weight") == graph.edges[edge].get("weight") for edge in graph.edges)


@pytest.mark.parametrize("suffix", [".graphml", ".gml", ".npy", ".json"])
def test_directed_graphs_stay_directed(tmp_path, suffix):
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
    WRITERS[suffix](graph, tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    assert found.is_directed()
    assert set(found.edges) == set(graph.edges)


def test_edge_lists_take_weights_comments_and_blank_lines(tmp_path):
    nx.write_weighted_edgelist(nx.Graph([(0, 1, {"weight": 0.5})]), tmp_path / "a.edgelist")
    assert read(tmp_path / "a.edgelist").edges[0, 1] == {"weight": 0.5}
    path = written(tmp_path, "b.txt", "\ufeff# a ring\n\n0 1 0.5 # half\n1\t2 {'weight': 0.25}\r\n2 0\n0 2\n")
    assert list(read(path).edges(data="weight")) == [(0, 1, 0.5), (0, 2, None), (1, 2, 0.25)]


def test_the_default_of_a_graphml_key_applies(tmp_path):
    path = written(
        tmp_path,
        "a.graphml",
        GRAPHML.format(
            '<key id="w" for="edge" attr.name="weight" attr.type="double"><default>0.25</default></key>'
            '<graph edgedefault="undirected"><node id="0"/><node id="1"/><edge source="0" target="1"/></graph>'
        ),
    )
    assert read(path).edges[0, 1]["weight"] == 0.25


@pytest.mark.parametrize("name", ["n0", "01", "1_0", "+1", "1.0", "１"])
def test_only_plain_numbers_become_numbers(tmp_path, name):
    assert name in read(written(tmp_path, "a.txt", f"0 {name}\n"))


@pytest.mark.parametrize("bomb", [BILLION_LAUGHS, EXTERNAL_ENTITY, "<!DOCTYPE g>" + GRAPHML.format("")])
def test_entities_and_dtds_are_refused_before_they_are_expanded(tmp_path, bomb):
    assert "DTDForbidden" in refused(written(tmp_path, "a.graphml", bomb))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        b"\xff\xfe\x00",
        b"<graphml>",
        GRAPHML.format("").encode(),
        GRAPHML.format('<graph edgedefault="undirected"><edge source="0"/></graph>').encode(),
        GRAPHML.format('<graph edgedefault="undirected"><hyperedge/></graph>').encode(),
        b"<a>" * 200_000 + b"</a>" * 200_000,
    ],
)
def test_malformed_graphml(tmp_path, content):
    refused(written(tmp_path, "a.graphml", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 1\n\xff\xfe\n", "UnicodeDecodeError"),
        (b"0 1\n2\n", "line 2 holds '2' alone"),
        (b"0,1\n", "line 1 holds '0,1' alone"),
        (b"0 1 heavy\n", "line 1 has 'heavy' after the edge"),
        (b"0 1 0.5 0.5\n", "line 1 has '0.5 0.5' after the edge"),
        (b"0 1 {'weight': __import__('os').getcwd()}\n", "line 1 has"),
        (b"0 1 {1: 2}\n", "not a mapping by names"),
        (b"0 1 {[]: 2}\n", "line 1 has"),
        (b"0 1 " + b"{" * 5_000, "line 1 has"),
        (b"0 1 {'weight': " + b"-" * 100_000 + b"1}", "line 1 has"),
        (b"0 1 0.5\n1 0 0.4\n", "line 2 gives the edge 1-0 again with other data"),
    ],
)
def test_malformed_edge_lists(tmp_path, content, message):
    assert message in refused(written(tmp_path, "a.edgelist", content))


GML = "graph [ {} ]"
TWO_NODES = "node [ id 0 ] node [ id 1 ] "


def test_gml_nodes_go_by_numbers_in_their_labels_else_by_their_ids(tmp_path):
    shuffled = nx.Graph([(2, 0), (0, 1)])  # its ids are 0, 1, 2 in this order
    nx.write_gml(shuffled, tmp_path / "a.gml")
    assert 'label "2"' in (tmp_path / "a.gml").read_text()
    assert {frozenset(edge) for edge in read(tmp_path / "a.gml").edges} == {frozenset({0, 1}), frozenset({0, 2})}
    named = 'node [ id 0 label "Ann" ] node [ id 1 label "Bob" ] edge [ source 0 target 1 weight 0.25 ]'
    assert list(read(written(tmp_path, "b.gml", GML.format(named))).edges(data="weight")) == [(0, 1, 0.25)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no graph"),
        (b"\xff", "UnicodeDecodeError"),
        (b"graph [", "NetworkXError"),
        (GML.format(TWO_NODES + "edge [ source 0 ]").encode(), "target"),
        (GML.format(TWO_NODES + "edge [ source 0 target 7 ]").encode(), "undefined target 7"),
        (GML.format(TWO_NODES + "edge [ source 0 target 1 ] edge [ source 1 target 0 ]").encode(), "duplicated"),
        (GML.format("node [ id 0 ] node [ id 0 ]").encode(), "duplicated"),
        (b"graph [ " * 100_000, "RecursionError"),
    ],
)
def test_malformed_gml(tmp_path, content, message):
    assert message in refused(written(tmp_path, "a.gml", content))


def test_csv_takes_a_header_in_any_order_or_none(tmp_path):
    wanted = [(0, 1, 0.5), (1, 2, None)]
    for text in (
        "0,1,0.5\n1,2\n",
        "source,target,weight\n0,1,0.5\n\n1,2,\n",
        '\ufeffWeight, Target, Source\r\n0.5, "1", 0\r\n,2,1\r\n',
        "target,source\n1,0\n2,1\n1,0\n",
    ):
        found = read(written(tmp_path, "a.csv", text))
        assert sorted((min(e), max(e)) for e in found.edges) == [(0, 1), (1, 2)]
        if "0.5" in text:
            assert [(i, j, found.edges[i, j].get("weight")) for i, j, _ in wanted] == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "UnicodeDecodeError"),
        (b"0;1\n1;2\n", "the header is '0;1'"),
        (b"from,to\n0,1\n", "the header is 'from,to'"),
        (b"source,source,target\n0,0,1\n", "the header is"),
        (b"source\n0\n", "the header is 'source'"),
        (b"0,1\n2\n", "line 2 has 1 fields ('2')"),
        (b"0,1,0.5,7\n", "line 1 has 4 fields"),
        (b"0,1,heavy\n", "line 1 has 'heavy' after the edge"),
        (b"0,1,0.5\n1,0,0.4\n", "line 2 gives the edge 1-0 again with other data"),
        (b'0,"1\n', "Error"),
        (b'0,"' + b"1" * 200_000 + b'"\n', "field larger than field limit"),
    ],
)
def test_malformed_csv(tmp_path, content, message):
    assert message in refused(written(tmp_path, "a.csv", content))


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_arrays_of_zeros_and_ones_have_no_weights(tmp_path):
    for dtype in (bool, np.int8, np.float32, ">f8"):
        ring = nx.to_numpy_array(RING).astype(dtype)
        for array in (ring, np.asfortranarray(ring)):
            found = read(written(tmp_path, "a.npy", saved(array)))
            assert list(found.edges(data="weight")) == [(i, j, None) for i, j in RING.edges]


def test_row_i_of_an_array_holds_whom_i_sends_to(tmp_path):
    array = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
    for stored in (array, np.asfortranarray(array)):
        found = read(written(tmp_path, "a.npy", saved(stored)))
        assert found.is_directed()
        assert {(0, 1), (1, 2), (2, 0)} < set(found.edges)
        assert found.edges[0, 1] == {"weight": 0.5}
        assert not found.has_edge(1, 0)
    rounded = array + array.T + np.array([[0, 1e-15, 0], [0, 0, 0], [0, 0, 0]])
    assert not read(written(tmp_path, "b.npy", saved(rounded))).is_directed()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOF"),
        (b"not an array", "magic"),
        (saved(np.eye(3))[:-1], "takes 72 bytes, found 71"),
        (saved(np.eye(3)) + b"x", "takes 72 bytes, found 73"),
        (saved(np.eye(3)).replace(b"(3, 3)", b"(9, 9)"), "shape (9, 9) of float64 takes 648 bytes, found 72"),
        (saved(np.zeros((2, 3))), "its shape is (2, 3)"),
        (saved(np.zeros(4)), "its shape is (4,)"),
        (saved(np.zeros((0, 0))), "its shape is (0, 0)"),
        (saved(np.array([[{}]], dtype=object), allow_pickle=True), "Python objects, which are pickled"),
        (saved(np.zeros((2, 2), dtype=complex)), "it holds complex128"),
        (saved(np.array([["a"]])), "it holds <U1"),
        (saved(np.array([[0, np.nan], [np.nan, 0]])), "entry [0, 1] is nan"),
        (saved(np.array([[0, 1], [np.inf, 0]])), "entry [1, 0] is inf"),
    ],
)
def test_malformed_arrays(tmp_path, content, message):
    assert message in refused(written(tmp_path, "a.npy", content))


def test_no_more_edges_are_made_of_an_array_than_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_files, "MAX_EDGES", 14)
    assert "it has 15 edges; at most 14" in refused(written(tmp_path, "a.npy", saved(1 - np.eye(6))))


def node_link(**document):
    return json.dumps({"nodes": [{"id": 0}, {"id": "1"}], "links": [{"source": 0, "target": 1}]} | document).encode()


def test_node_links_take_edges_or_links_and_ids_that_write_numbers(tmp_path):
    weighted = [{"source": "0", "target": 1, "weight": 0.5, "color": "red"}]
    for content in (node_link(links=weighted), node_link(edges=weighted)):
        found = read(written(tmp_path, "a.json", content))
        assert list(found.edges(data=True)) == [(0, 1, {"weight": 0.5})]
    assert read(written(tmp_path, "a.json", node_link(directed=True))).is_directed()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSONDecodeError"),
        (node_link()[:-2], "JSONDecodeError"),
        (b"[]", "no mapping with `nodes` and `edges` or `links`"),
        (b'{"nodes": []}', "no mapping"),
        (b"[" * 200_000, "RecursionError"),
        (node_link(multigraph=True), "it is a multigraph"),
        (node_link(nodes=[{"name": 0}]), "KeyError: 'id'"),
        (node_link(nodes=[{"id": [0]}]), "a node's id is [0]"),
        (node_link(nodes=[0, 1]), "TypeError"),
        (node_link(links=[{"source": 0}]), "KeyError: 'target'"),
        (node_link(links=[{"source": 0, "target": 2}]), "edge 0 names the node '2', which is not among the nodes"),
        (
            node_link(links=[{"source": 0, "target": 1, "weight": w} for w in (0.5, 0.4)]),
            "edge 1 gives the edge 0-1 again with other data",
        ),
    ],
)
def test_malformed_node_links(tmp_path, content, message):
    assert message in refused(written(tmp_path, "a.json", content))


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_files, "MAX_BYTES", 2**20)
    assert "larger than 1 MB" in refused(written(tmp_path, "a.txt", b"0 1\n" * 2**19))


def test_a_file_that_cannot_be_opened(tmp_path):
    assert "FileNotFoundError" in refused(tmp_path / "gone.txt")
