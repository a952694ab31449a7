"""`data show` says who has what, in words, as JSON and as a picture."""

from pathlib import Path

import pytest

from decentral.shipped import shipped
from tests.cli.conftest import Command


def test_it_counts_every_class_on_every_node(decentral: Command, small: Path) -> None:
    shown = decentral("data", "show", str(small))
    found = decentral("data", "show", str(small), "--json").json
    assert shown.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines() if line.split()[0].isdigit()}
    for number, node in enumerate(found["nodes"]):
        counts = [int(cell) if cell != "·" else 0 for cell in rows[str(number)][1:11]]
        assert (counts, int(rows[str(number)][0])) == (node["counts"], node["samples"])
    assert sum(node["samples"] for node in found["nodes"]) == found["samples"] == 1438
    assert found["heterogeneity_at_start"] > 0


def test_the_seed_and_overrides_decide(decentral: Command, small: Path) -> None:
    def counts(*options: str) -> list[list[int]]:
        return [node["counts"] for node in decentral("data", "show", str(small), "--json", *options).json["nodes"]]

    assert counts() == counts("--seed", "0") != counts("--seed", "1")
    assert len(counts("-s", "nodes=7")) == 7


def test_it_draws(decentral: Command, small: Path, tmp_path: Path) -> None:
    shown = decentral("data", "show", str(small), "-o", "who.svg")
    assert "drawn in who.svg" in shown.out
    assert (tmp_path / "who.svg").read_text().startswith("<?xml")
    decentral("data", "show", str(small), "-o", "who.PNG")
    assert (tmp_path / "who.PNG").read_bytes().startswith(b"\x89PNG")
    wrong = decentral("data", "show", str(small), "-o", "who.gif")
    assert (wrong.code, wrong.line) == (2, "-o who.gif: found the ending '.gif'; required: .svg or .png")
    nowhere = decentral("data", "show", str(small), "-o", "no/such/who.svg")
    assert (nowhere.code, nowhere.line.startswith("-o no/such/who.svg: cannot be written")) == (2, True)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("quadratics", "The targets are numbers: there are no classes to count"),
        ("characters", "pydoc_data.topics: sha256 "),
    ],
)
def test_it_shows_shipped_experiments_of_other_kinds(decentral: Command, file: str, words: str) -> None:
    shown = decentral("data", "show", str(shipped("launch") / f"{file}.yaml"))
    assert shown.code == 0
    assert words in shown.out
    assert "heterogeneity zeta^2" in shown.out


def test_many_nodes_are_not_all_printed(decentral: Command, small: Path) -> None:
    shown = decentral("data", "show", str(small), "-s", "nodes=70", "-s", "partition=iid")
    assert "and 6 more nodes; --json has all" in shown.out


def test_what_cannot_be_split_is_told_with_its_place(decentral: Command, small: Path) -> None:
    result = decentral("data", "show", str(small), "-s", "partition=natural")
    assert result.code == 2
    assert "partition" in result.line
    assert "does not say where its samples come from" in result.line


def test_a_language_model_learns(decentral: Command, small: Path) -> None:
    """The text's sha256 is in the record, and after some rounds on two nodes the next character is no guess."""
    model, data = "model={name: gru, width: 32}", "data={name: pydoc-topics, context: 16, test_fraction: 0.02}"
    options = ["-s", data, "-s", model, "-s", "partition=natural", "-s", "rounds=40", "-s", "evaluate_every=40"]
    options += ["-s", "optimizer={name: torch.optim.Adam, lr: 0.02}", "-s", "nodes=2"]
    document = decentral("simulate", str(small), "--json", "--out", "run", *options).json
    assert document["versions"]["pydoc_data.topics"].startswith("sha256 ")
    assert document["methods"][0]["final_accuracy"] > 0.25
    assert document["methods"][0]["final_test_loss"] < 3.0
