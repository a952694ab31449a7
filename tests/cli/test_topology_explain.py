"""`decentral topology explain`: what it prints, and that whatever a file holds ends in an answer or in one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest

from .conftest import Command

SECONDS = 120


def test_the_page_of_a_ring(decentral: Command) -> None:
    result = decentral("topology", "explain", "ring", "--nodes", "32", "--parameters", "10M")
    assert result.code == 0
    for expected in (
        "32 nodes, 32 edges, degree 2 to 2, diameter 16",
        "second eigenvalue 0.9872, last -0.3333, spectral gap 0.0128",
        "divides it by e: 78",
        "messages per node and round 2, busiest node 2; of 40.0 MB each: 80.0 MB",
        "with rate 0.1257; E||x||^2 grows from 0.1649 on",
        "the last eigenvalue -0.3333 is -1/3 and must be above",
    ):
        assert expected in result.out
    rows = [line.split() for line in result.out.splitlines()]
    assert ["mean", "3.72", "6.632", "8.781", "17.08", "28.9"] in rows
    assert ["worst", "node", "3.72", "6.632", "8.781", "17.08", "28.9"] in rows


def test_the_document(decentral: Command) -> None:
    document = decentral(
        "topology", "explain", "star", "--nodes", "8", "--model-bytes", "1MB", "--noise", "10", "--json"
    ).json
    assert document["name"] == "star"
    assert document["messages_busiest"] == 7
    assert document["bytes_busiest"] == 7e6
    assert document["noise"] == 10
    assert [row["gamma"] for row in document["effective_neighbors"]] == [0.5, 0.9, 0.95, 0.99, 0.999]
    assert {row["method"]: row["admitted"] for row in document["methods"]}["RelaySum"] is True
    rates = [row["rate"] for row in document["rates"]]
    assert max(rates) <= document["best"]["rate"] < 1


def test_a_directed_file_that_only_push_sum_may_use(decentral: Command, tmp_path: Path) -> None:
    (tmp_path / "g.py").write_text(
        "import networkx as nx\nWEIGHTS = 'column-stochastic'\ndef build(nodes):\n"
        "    g = nx.cycle_graph(nodes, create_using=nx.DiGraph)\n    g.add_edge(0, 3)\n    return g\n"
    )
    result = decentral("topology", "explain", "./g.py", "--nodes", "6")
    assert result.code == 0
    assert "n_W is defined for doubly stochastic matrices" in result.out
    assert "mixing matrix column stochastic, the same in every round" in result.out
    document = decentral("topology", "explain", "./g.py", "--nodes", "6", "--json").json
    assert document["best"] is None
    assert document["l2"] is None
    assert document["second_modulus"] > 0


def test_a_schedule_drawn_in_every_round(decentral: Command, tmp_path: Path) -> None:
    (tmp_path / "g.py").write_text(
        "from random import Random\nimport networkx as nx\n"
        "def build(nodes):\n    return nx.complete_graph(nodes)\n"
        "def schedule(turn, nodes):\n    order = list(range(nodes))\n    Random(turn).shuffle(order)\n"
        "    return list(zip(order[::2], order[1::2]))\n"
    )
    result = decentral("topology", "explain", "./g.py", "--nodes", "8")
    assert result.code == 0
    assert "drawn anew in every round" in result.out
    assert "over 256 sampled turns, an estimate" in result.out
    assert "busiest node 1" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ring", "--nodes", "10000000"), "--nodes 10000000; required: 1 to 100,000"),
        (("ring", "--nodes", "0"), "--nodes 0; required: 1 to 100,000"),
        (("complete", "--nodes", "100000"), "4,999,950,000 edges"),
        (("ring", "--noise", "1"), "noise=1; required: a number above 1"),
        (("ring", "--noise", "nan"), "noise=nan; required"),
        (("ring", "--parameters", "ten"), "--parameters ten: must be a number of parameters"),
        (("ring", "--parameters", "1M", "--model-bytes", "4MB"), "say the same"),
        (("rnig",), "the gallery has no topology 'rnig'; did you mean 'ring'?"),
        (("./gone.edgelist",), "no file ./gone.edgelist"),
    ],
)
def test_bad_input_gets_one_line(decentral: Command, arguments: tuple[str, ...], message: str) -> None:
    result = decentral("topology", "explain", *arguments)
    assert result.code == 2
    assert message in result.line


def complete(path: Path) -> None:
    path.write_text("import networkx as nx\ndef build(nodes):\n    return nx.complete_graph(nodes)\n")


def lines(*edges: str) -> Callable[[Path], None]:
    return lambda path: path.write_text("\n".join(edges) + "\n") and None


def directed_cycle(path: Path) -> None:
    nx.write_graphml(nx.cycle_graph(4, create_using=nx.DiGraph), path)


def multigraph(path: Path) -> None:
    graph = nx.MultiGraph(nx.cycle_graph(4))
    graph.add_edge(0, 1)
    nx.write_graphml(graph, path)


def not_readable(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00binary")


@pytest.mark.parametrize(
    ("name", "write", "nodes", "options", "message"),
    [
        ("nan.edgelist", lines("0 1 nan", "1 2 1"), 3, (), "has weight nan"),
        ("negative.edgelist", lines("0 1 -0.5", "1 2 0.5"), 3, ("-s", "weights=given"), "has weight -0.5"),
        ("heavy.edgelist", lines("0 1 0.9", "1 2 0.9"), 3, ("-s", "weights=given"), "sum to 1.8"),
        ("duplicate.edgelist", lines("0 1 0.5", "1 0 0.25"), 2, (), "line 2 gives the edge 1-0 again with other data"),
        ("twice.graphml", multigraph, 4, (), "a multigraph; a simple networkx.Graph or DiGraph is required"),
        ("labels.edgelist", lines("1 2", "2 3"), 3, (), "a node labeled 3"),
        ("names.edgelist", lines("a b", "b c"), 3, (), "a node labeled 'a'"),
        (
            "cycle.graphml",
            directed_cycle,
            4,
            ("-s", "weights=metropolis"),
            "need an undirected graph, found a directed",
        ),
        ("parts.edgelist", lines("0 1", "2 3"), 4, (), "not connected: 2 components"),
        ("bytes.edgelist", not_readable, 4, (), "cannot read"),
        ("folder.edgelist", Path.mkdir, 4, (), "no file ./folder.edgelist"),
        ("wrong.csvx", lines("0 1"), 2, (), "has the suffix '.csvx'"),
    ],
)
def test_hostile_files_end_in_one_line(
    decentral: Command,
    tmp_path: Path,
    name: str,
    write: Callable[[Path], None],
    nodes: int,
    options: tuple[str, ...],
    message: str,
) -> None:
    write(tmp_path / name)
    result = decentral("topology", "explain", f"./{name}", "--nodes", str(nodes), *options)
    assert result.code == 2
    assert message in result.line


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(SECONDS + 30)
def test_a_million_edges_end_in_an_answer(tmp_path: Path) -> None:
    """In a process of its own, whose time is bounded: 1,415 nodes, each with all others."""
    complete(tmp_path / "g.py")
    command = [sys.executable, "-m", "decentral", "topology", "explain", "./g.py", "--nodes", "1415", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["edges"] == 1415 * 1414 // 2
    assert document["effective_neighbors"][0]["mean"] == pytest.approx(1415, rel=1e-6)
