"""`decentral topology rank`: table, document, picture, and refusals."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Command


def test_the_table(decentral: Command) -> None:
    result = decentral("topology", "rank", "--nodes", "32", "--degree-max", "5")
    assert result.code == 0
    assert "32 nodes, at most 5 neighbors in a round" in result.out
    first = result.out.splitlines()[2].split()
    assert (first[:3], first[7]) == (["1", "directed_exponential", "5"], "0.2495")
    assert "not by the spectral gap" in result.out
    assert "  star: its busiest node has 31 neighbors in a round, above 5" in result.out


def test_the_document_and_the_picture(decentral: Command, tmp_path: Path) -> None:
    result = decentral("topology", "rank", "--nodes", "16", "-o", "rank.svg", "--json")
    assert result.code == 0
    assert [row["place"] for row in result.json["ranking"]] == list(range(1, len(result.json["ranking"]) + 1))
    assert "complete" in {row["name"] for row in result.json["ranking"]}
    assert "davis" in result.json["omitted"]
    assert ElementTree.parse(tmp_path / "rank.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    "options", [("--link", "1gbit", "--parameters", "10M", "--latency", "1ms"), ("--gamma", "0.9")], ids=" ".join
)
def test_bars(decentral: Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = decentral("topology", "rank", "--nodes", "16", *options, "-o", "rank.png")
    assert result.code == 0
    assert (tmp_path / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert ("per second: -ln(1 - rate)" in result.out) == ("--link" in options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gamma", "-0.1"), "gamma=-0.1; required: 0 or more and below 1"),
        (("--gamma", "1"), "gamma=1; required"),
        (("--gamma", "0.9", "--lr", "0.1"), "--gamma ranks by n_W alone"),
        (("--lr", "0"), "lr=0; required: a number above 0"),
        (("--lr", "nan"), "lr=nan; required"),
        (("--noise", "0.5"), "noise=0.5; required"),
        (("--link", "1gbit"), "give --parameters or --model-bytes"),
        (("--parameters", "1M"), "given without --link RATE"),
        (("--link", "fast", "--parameters", "1M"), "--link fast: must be a rate"),
        (("-o", "rank.pdf"), "the suffix is '.pdf'; required: .svg or .png"),
        (("-o", "gone/rank.svg"), "there is no folder"),
    ],
)
def test_bad_input_gets_one_line(decentral: Command, options: tuple[str, ...], message: str) -> None:
    result = decentral("topology", "rank", "--nodes", "16", *options)
    assert result.code == 2
    assert message in result.line
