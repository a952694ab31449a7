"""`topology walk`: its table, its document, its picture, and one line for each mistake."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Command

WALK = ("topology", "walk", "davis", "--nodes", "32", "--tokens", "20", "--steps", "2000")


def test_the_table_sets_the_walk_beside_its_base_and_the_simple_walk(decentral: Command) -> None:
    result = decentral(*WALK, "--alpha", "5")
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    assert [row[0] for row in rows[2:5]] == ["srrw,", "metropolis", "simple"]
    assert "TV at 2  TV at 20  TV at 200  TV at 2,000" in result.out
    assert "simple visits nodes by their degrees; its TV stays at 0.2086" in result.out
    assert "256 bytes in each message" in result.out


def test_the_document(decentral: Command) -> None:
    document = decentral(*WALK, "--alpha", "5", "--json").json
    assert document["target"] == pytest.approx([1 / 32] * 32)
    repelled, base, simple = document["walks"]
    assert (repelled["kernel"], repelled["alpha"], repelled["asks"]) == ("srrw", 5, "neighbors' counts")
    assert repelled["distance"]["visits"][-1] == 2000
    assert repelled["distance"]["mean"][-1] == pytest.approx(repelled["distance"]["predicted"][-1], rel=0.15)
    assert repelled["distance"]["mean"][-1] < 0.4 * base["distance"]["mean"][-1]
    assert repelled["asymptotic_variance"] < 0.1 * base["asymptotic_variance"]
    assert repelled["cover_time"]["covered"] == 1
    assert repelled["cover_time"]["p10"] <= repelled["cover_time"]["median"] <= repelled["cover_time"]["p90"]
    assert (base["mixing_time"], base["mixing_time_exact"]) == (12, True)
    assert base["return_times"] == pytest.approx([32] * 32)
    assert sum(simple["share_of_visits"]) == pytest.approx(1)
    assert (simple["on_target"], simple["distance"]["predicted"]) == (False, None)
    assert simple["mixing_time"] is None  # the graph is bipartite
    assert document == decentral(*WALK, "--alpha", "5", "--json").json
    assert document["walks"] != decentral(*WALK, "--alpha", "5", "--seed", "1", "--json").json["walks"]


def test_a_target_of_ones_own(decentral: Command, tmp_path: Path) -> None:
    (tmp_path / "target.txt").write_text("# shares\n1\n2.5\n\n3  # the third\n1e0\n")
    document = decentral("topology", "walk", "ring", "--nodes", "4", "--target", "target.txt", "--json").json
    assert document["target"] == pytest.approx([1 / 7.5, 2.5 / 7.5, 3 / 7.5, 1 / 7.5])
    assert document["walks"][0]["share_of_visits"] == pytest.approx(document["target"], abs=0.01)
    assert document["walks"][0]["on_target"]


@pytest.mark.parametrize("kernel", ["simple", "weighted", "metropolis", "non-backtracking", "hdt"])
def test_each_kernel_walks(decentral: Command, kernel: str) -> None:
    document = decentral(
        "topology", "walk", "torus", "--nodes", "9", "--kernel", kernel, "--steps", "90", "--json"
    ).json
    assert document["walks"][0]["kernel"] == kernel
    assert document["walks"][0]["alpha"] == (10 if kernel == "hdt" else 0)
    assert document["walks"][-1]["kernel"] == "simple"


@pytest.mark.parametrize(("nodes", "graphs"), [(12, 2), (300, 0)])
def test_the_picture(decentral: Command, tmp_path: Path, nodes: int, graphs: int) -> None:
    """Numbers in the nodes of a small graph, none where the nodes are ranked on an axis; the same file each time."""
    arguments = ("topology", "walk", "ring", "--nodes", str(nodes), "--steps", "500", "--tokens", "5", "-o")
    assert decentral(*arguments, "visits.svg").code == 0
    drawn = ElementTree.fromstring((tmp_path / "visits.svg").read_text())
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert texts.count("11") == graphs
    assert {"srrw, alpha 10", "metropolis", "simple", "total variation to the target"} <= set(texts)
    decentral(*arguments, "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "visits.svg").read_bytes()
    decentral(*arguments, "visits.png")
    assert (tmp_path / "visits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--kernel", "srww"), "unknown kernel 'srww'; did you mean 'srrw'?"),
        (("--alpha", "-1"), "alpha is -1; required: a finite number, 0 or more"),
        (("--kernel", "simple", "--alpha", "2"), "kernel simple has no memory of visits"),
        (("--target", "nowhere.txt"), "--target nowhere.txt: no such file; it is uniform, degree, or a file"),
        (("--target", "words.txt"), "words.txt:2: found 'two'; required: one number"),
        (("--target", "short.txt"), "the target has 2 numbers for 8 nodes"),
        (("--target", "zero.txt"), "the target of node 3 is 0"),
        (("-o", "visits.pdf"), "-o visits.pdf: the suffix is '.pdf'; required: .svg or .png"),
        (("-o", "none/visits.svg"), "there is no folder none; make it first"),
    ],
)
def test_mistakes(decentral: Command, tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    (tmp_path / "words.txt").write_text("1\ntwo\n")
    (tmp_path / "short.txt").write_text("1\n2\n")
    (tmp_path / "zero.txt").write_text("1\n1\n1\n0\n1\n1\n1\n1\n")
    result = decentral("topology", "walk", "ring", *arguments)
    assert result.code == 2
    assert line in result.line


def test_a_directed_graph_is_not_walked(decentral: Command, tmp_path: Path) -> None:
    (tmp_path / "circle.py").write_text(
        "import networkx as nx\n\ndef build(nodes):\n    return nx.cycle_graph(nodes, create_using=nx.DiGraph)\n"
    )
    result = decentral("topology", "walk", "./circle.py", "-s", "weights=uniform")
    assert result.code == 2
    assert "is directed, with the edge 0-1 one way only" in result.line
    (tmp_path / "star.py").write_text(
        "import networkx as nx\n\ndef build(nodes):\n    return nx.star_graph(nodes - 1)\n"
    )
    refused = decentral("topology", "walk", "./star.py", "--kernel", "non-backtracking", "--target", "uniform")
    assert refused.code == 2
    assert "kernel non-backtracking visits nodes in proportion to their degrees" in refused.line
