"""Kill -9 of a process that holds a token: `python -m tests.contract.chaos_tokens [KILLS] [--nproc]`; minutes.

Each time eight processes walk three tokens over a hypercube, with `transport.survive`. Every visit takes some
milliseconds and says in a file who makes it, so that the victim is a node in the middle of a visit, at a random time.
Then the run must end with code 0 and with one of each token among the living, none of them of fewer visits than its
budget, at most one visit lost, the victim's token of the next generation, and no process left.

With `--nproc` that is the command `decentral train --nproc 8`. Else the launcher is the same, but its ranks are forked,
so that what takes the time, the imports of torch, is done once for all kills.
"""

import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, start_processes

from decentral.cli.main import run
from decentral.transport.apart import HOST, _Job
from tests.cli.test_processes import start

NODES, TOKENS, ROUNDS, VISITS = 8, 3, 12, 10
VISIT_S = 0.004
PATIENCE_S = 300

WATCHED = f'''\
"""Random-walk SGD that says in a file which node makes a visit, and which have been made."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from decentral.algorithms.random_walk_sgd import RandomWalkSGD

HERE = Path(__file__).parent


def say(name, text):
    with open(HERE / name, "a") as file:
        file.write(text)


@dataclass(frozen=True, kw_only=True)
class Watched(RandomWalkSGD):
    async def visit(self, state, token, peer):
        say("begun", f"{{peer.node}} {{os.getpid()}} {{token.number}}\\n")
        time.sleep({VISIT_S})
        loss = await super().visit(state, token, peer)
        say("made", f"{{token.number}}\\n")
        return loss
'''
FILE = f"""\
nodes: {NODES}
rounds: {ROUNDS}
batch_size: 16
evaluate_every: {ROUNDS}
data: digits
model: linear
algorithm: {{name: "watched:Watched", tokens: {TOKENS}, visits: {VISITS}}}
topology: hypercube
transport: {{survive: true, timeout_s: 30}}
"""


class Victim(NamedTuple):
    node: int
    token: int


class Outcome(NamedTuple):
    """What one kill came to.

    Attributes:
        generations: of the tokens, in order of numbers.
        lost: visits that were made and that no token has.
        seconds: of the whole run.
    """

    victim: Victim
    generations: list[int]
    lost: int
    seconds: float


Launch = Callable[[Path, Sequence[str]], tuple[int, str]]
"""Runs a command in a folder as NODES ranks; its exit code, and what it says of how it went."""


def by_command(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    job = start(folder, *arguments, "--nproc", str(NODES))
    try:
        _, told = job.communicate(timeout=PATIENCE_S)
    finally:
        job.kill()
    return job.returncode, told


class Forked(_Job):
    """Ranks that are forked from here."""

    def _start(self, rank: int, command: Sequence[str], logs: Path) -> PContext:
        logs.mkdir()
        return start_processes(
            name="decentral",
            entrypoint=as_rank,
            args={0: tuple(command)},
            envs={0: self._environment(rank)},
            logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
            start_method="fork",
        )


def forked(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    told: list[str] = []
    job = Forked(NODES, TCPStore(HOST, 0, is_master=True, wait_for_workers=False), told.append)
    logging.disable(logging.CRITICAL)  # torch's own lines
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with tempfile.TemporaryDirectory(prefix="chaos-") as logs, job.started([str(folder), *arguments], Path(logs)):
        ending = job.waited()
    for number, handler in before.items():
        signal.signal(number, handler)
    logging.disable(logging.NOTSET)
    return ending.code, "\n".join([*told, ending.reason])


def as_rank(folder: str, *arguments: str) -> None:
    """`decentral ARGUMENTS` in a process that was forked for it."""
    os.setsid()
    os.chdir(folder)
    out = os.open(f"told-{os.environ['RANK']}", os.O_CREAT | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["decentral", *arguments]
    try:
        run()
    except SystemExit as end:
        if end.code:
            raise


def one_kill(folder: Path, seed: int, launch: Launch = forked) -> Outcome:
    """Run, kill and check; raises AssertionError."""
    (folder / "watched.py").write_text(WATCHED)
    (folder / "watched.yaml").write_text(FILE)
    after = random.Random(seed).randrange(ROUNDS * VISITS * TOKENS * 9 // 10)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill, folder / "begun", after)
        code, told = launch(folder, ["train", "watched.yaml", "-s", f"seeds=[{seed}]", "--out", "run"])
        victim = killing.result()
    assert code == 0, f"{victim}: exit code {code}: {told}"
    assert f"node {victim.node} was ended by SIGKILL" in told, told
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    return checked(folder, victim, last, time.monotonic() - began)


def checked(folder: Path, victim: Victim, last: dict[str, Any], seconds: float) -> Outcome:
    tokens, made = last["tokens"], (folder / "made").read_text().splitlines()
    assert [token["number"] for token in tokens] == list(range(TOKENS)), tokens
    assert [token["visit"] for token in tokens] == [ROUNDS * VISITS] * TOKENS, tokens
    assert victim.node not in [token["holder"] for token in tokens], tokens
    lost = len(made) - sum(token["visit"] for token in tokens)
    assert 0 <= lost <= 1, f"{lost} visits are lost"
    assert not left(folder / "begun"), "a process is left"
    return Outcome(victim, [token["generation"] for token in tokens], lost, seconds)


def kill(begun: Path, after: int) -> Victim:
    """Kill -9 who began the newest visit, once so many have begun."""
    deadline = time.monotonic() + PATIENCE_S
    while not begun.exists() or len(lines := begun.read_text().splitlines()) <= after:
        assert time.monotonic() < deadline, "no visits"
        time.sleep(0.0005)
    node, pid, token = map(int, lines[-1].split())
    os.kill(pid, signal.SIGKILL)
    return Victim(node, token)


def left(begun: Path) -> list[int]:
    """The processes of nodes that still run."""
    pids = {int(line.split()[1]) for line in begun.read_text().splitlines()}
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def main(kills: int, launch: Launch) -> None:
    held = 0
    for seed in range(kills):
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            outcome = one_kill(Path(name), seed, launch)
        held += any(outcome.generations)
        tell(
            f"{seed:3}: node {outcome.victim.node} died at a visit of token {outcome.victim.token}; generations "
            f"{outcome.generations}, {outcome.lost} visits lost, {outcome.seconds:.1f} s"
        )
    tell(f"{kills} kills, {held} of a holder: all ended with {TOKENS} tokens")


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    main(counts[0] if counts else 20, by_command if "--nproc" in sys.argv else forked)
