"""The command line in this process: what it printed where, and its exit code."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

import pytest

from decentral.cli.main import run

SMALL = """\
nodes: 4
rounds: 12
batch_size: 16
evaluate_every: 4
target: 0.5
data: digits
partition: {name: dirichlet, alpha: 1.0}
model: {name: mlp, hidden: [16]}
optimizer: {lr: 0.2, momentum: 0.9}
algorithm: dsgd
topology: ring
transport: {timeout_s: 30}
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return loads(self.out)

    @property
    def line(self) -> str:
        """The one line of a fault."""
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("decentral: ").rstrip("\n")


Command = Callable[..., Result]


@pytest.fixture
def decentral(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`decentral("check", "a.yaml")` in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["decentral", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An experiment of seconds."""
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file
