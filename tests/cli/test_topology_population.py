"""`topology population`: its table, its document, and one line for each mistake."""

import pytest

from tests.cli.conftest import Command

ARGUMENTS = ("topology", "population", "complete", "--nodes", "10", "--tokens", "5", "--steps", "500", "--runs", "2")


def test_the_table(decentral: Command) -> None:
    result = decentral(*ARGUMENTS, "--kill", "200:2", "--kill", "300:3")
    assert result.code == 0, result.err
    assert "complete: 10 nodes, 45 edges; 5 tokens at the start" in result.out
    assert [line.split() for line in result.out.splitlines()[-2:]] == [
        [str(run), "0", "5", "extinct", "never,", "never"] for run in range(2)
    ]


def test_the_document(decentral: Command) -> None:
    document = decentral(*ARGUMENTS, "--fork-below", "1.5", "--kill", "200:4", "--json").json
    assert (document["tokens"], document["enough"]) == (5, 4)
    for run in document["runs"]:
        assert run["least"] >= 1
        assert run["final"] == run["population"]["tokens"][-1]
        assert (run["kills"][0]["step"], run["kills"][0]["lost"]) == (200, 4)
        assert 0 <= run["kills"][0]["steps_until_enough"] < 300
    again = decentral(*ARGUMENTS, "--fork-below", "1.5", "--kill", "200:4", "--json").json
    assert document == again


BAD = {
    "a step that there is not": (("--kill", "500:1"), "--kill 500:1: required: STEP:COUNT, a step below 500"),
    "no count": (("--kill", "3"), "--kill 3: required: STEP:COUNT"),
    "nothing to make up for drops": (("--drop-above", "3"), "found --drop-above 3 alone; give --fork-below too"),
    "bounds that cross": (("--drop-above", "1", "--fork-below", "2"), "fork below 2 and drop above 1"),
}


@pytest.mark.parametrize(("arguments", "told"), BAD.values(), ids=BAD)
def test_mistakes(decentral: Command, arguments: tuple[str, ...], told: str) -> None:
    result = decentral(*ARGUMENTS, *arguments)
    assert result.code == 2
    assert told in result.err
