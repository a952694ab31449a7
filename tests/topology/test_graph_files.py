import networkx as nx
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


def test_every_suffix_reads_what_networkx_writes(tmp_path):
    weighted = nx.cycle_graph(6)
    nx.set_edge_attributes(weighted, 0.25, "weight")
    for suffix in READERS:
        write = nx.write_graphml if suffix == ".graphml" else nx.write_edgelist
        for graph in (RING, weighted):
            write(graph, tmp_path / f"a{suffix}")
            found = read(tmp_path / f"a{suffix}")
            assert set(found) == set(range(6))
            assert {frozenset(edge) for edge in found.edges} == {frozenset(edge) for edge in graph.edges}
            assert all(found.edges[edge].get("weight") == graph.edges[edge].get("weight") for edge in graph.edges)


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


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_files, "MAX_BYTES", 2**20)
    assert "larger than 1 MB" in refused(written(tmp_path, "a.txt", b"0 1\n" * 2**19))


def test_a_file_that_cannot_be_opened(tmp_path):
    assert "FileNotFoundError" in refused(tmp_path / "gone.txt")
