"""`--netlab` and what goes with it: faults that are found before anything is made, and the command that reproduces."""

from pathlib import Path

import pytest

from decentral.cli.netlab import lab, options_of
from decentral.measure.comparison import Network
from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("verb", "options", "line"),
    [
        ("train", ["--netlab", "3"], "--netlab 3 for nodes: 4; one host is one node, so use --netlab 4 or -s nodes=3"),
        ("speedup", ["--rate", "1mbit"], "--rate given without --netlab HOSTS, which makes the network it describes"),
        ("train", ["--netlab", "4", "--nproc", "4"], "--nproc starts processes on this machine and --netlab on the"),
    ],
)
def test_a_lab_that_does_not_fit_is_refused(
    decentral: Command, small: Path, verb: str, options: list[str], line: str
) -> None:
    result = decentral(verb, str(small), *options)
    assert result.code == 2
    assert result.line.startswith(line)
    assert not Path("runs").exists()


def test_a_rank_makes_no_lab(decentral: Command, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    result = decentral("train", str(small), "--netlab", "4")
    assert (result.code, result.line[:34]) == (2, "--netlab starts its own ranks, and")


def test_the_labs_own_refusal_comes_back_in_its_words(decentral: Command, small: Path) -> None:
    result = decentral("train", str(small), "--netlab", "4", "--loss", "3")
    assert (result.code, result.line) == (2, "--loss 3: must be a percentage such as 0.1%")


def test_the_options_of_a_link_ask_for_it_again() -> None:
    network = Network(hosts=4, rate_bit_s=1e8, latency_s=0.01, jitter_s=2e-3, loss=0.001)
    asked = lab(4, rate="100mbit", latency="10ms", jitter="2ms", loss="0.1%")
    assert asked is not None
    assert options_of(network) == ["--netlab", "4", *asked.options]
    bare = Network(hosts=2, rate_bit_s=None, latency_s=None, jitter_s=None, loss=None)
    assert options_of(bare) == ["--netlab", "2"]
