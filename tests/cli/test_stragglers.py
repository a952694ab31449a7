"""--straggler, `stragglers:` and batch sizes by node: what they become, and what is refused."""

import json
from pathlib import Path

import pytest

from decentral.cli.straggler import with_stragglers
from decentral.config import Transport
from decentral.errors import ConfigError
from decentral.loading import load
from decentral.measure.prepared import own_method, prepare_all, refuse_unfit_ranks
from decentral.measure.straggling import cpu_share_of
from decentral.methods import methods
from decentral.training.cpu_share import Home
from tests.cli.conftest import Command
from tests.cli.test_processes import finished

FILE = """\
nodes: 4
rounds: 3
batch_size: 16
data: digits
model: linear
algorithm: dsgd
topology: ring
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "straggling.yaml"
    path.write_text(FILE)
    return path


def test_the_option_is_the_section_in_short(file: Path) -> None:
    given = ["node=3,slowdown=10", "every=2,node=1,stall=0.5"]
    slow, stalling = load(file, with_stragglers(["rounds=2"], given)).experiment.stragglers
    assert (slow.node, slow.slowdown, slow.every_s) == (3, 10, None)
    assert (stalling.node, stalling.slowdown, stalling.lasting_s, stalling.every_s) == (1, None, 0.5, 2)
    (limited,) = load(file, with_stragglers([], ["node=2,cpu=0.1"])).experiment.stragglers
    assert (limited.node, limited.slowdown, limited.cpu) == (2, None, 0.1)
    assert with_stragglers(["rounds=2"], None) == ["rounds=2"]


@pytest.mark.parametrize(
    "text", ["node=3", "node=3,slowdown=ten", "3,10", "node=3,slowdown=2,stall=1", "node=1,stall=1"]
)
def test_an_option_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--straggler {text}: .*required: node=I,slowdown=F, node=I,cpu=SHARE or "):
        with_stragglers([], [text])


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("stragglers=[{node: 4, slowdown: 2}]", "found node 4; required: one of 0 to 3"),
        ("stragglers=[{node: 1}]", "node 1 stands still for ever"),
        ("stragglers=[{node: 1, cpu: 0.5, slowdown: 2}]", "found cpu and slowdown; cpu holds all run long"),
        ("batch_size=[16, 16, 16]", "found 3 sizes; required: one for each of 4 nodes"),
    ],
)
def test_what_does_not_fit_the_nodes_is_refused(file: Path, decentral: Command, section: str, told: str) -> None:
    ended = decentral("simulate", str(file), "-s", section)
    assert ended.code == 2
    assert told in ended.err
    assert section.partition("=")[0] in ended.err


def test_nodes_draw_batches_of_their_own_sizes(file: Path) -> None:
    ready = own_method(load(file, ["batch_size=[1, 2, 3, 1000]"]).experiment)
    sizes = [len(ready.task.batches(node).next()[0]) for node in range(4)]
    assert sizes[:3] == [1, 2, 3]
    assert 300 < sizes[3] < 1000  # all that the node has


def test_simulated_runs_with_a_clock_have_the_same_stragglers(file: Path, decentral: Command) -> None:
    """All wait for the one that is ten times slower: three rounds of 10 x 0.25 s."""
    asked = ["-s", "clock={gradient_s: 0.25, latency_s: 0}", "-s", "stragglers=[{node: 2, slowdown: 10}]"]
    ended = decentral("simulate", str(file), *asked, "--out", str(file.parent / "run"))
    assert ended.code == 0, ended.err
    last = json.loads((file.parent / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["seconds"] == pytest.approx(7.5, rel=1e-3)


def test_a_share_of_a_core_is_a_slowdown_in_simulated_runs_and_no_sleep_in_real_ones(
    file: Path, decentral: Command
) -> None:
    asked = ["-s", "clock={gradient_s: 0.25, latency_s: 0}", "-s", "stragglers=[{node: 2, cpu: 0.1}]"]
    ended = decentral("simulate", str(file), *asked, "--out", str(file.parent / "run"))
    assert ended.code == 0, ended.err
    last = json.loads((file.parent / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["seconds"] == pytest.approx(7.5, rel=1e-3)
    ready = own_method(load(file, ["stragglers=[{node: 2, cpu: 0.1}]"]).experiment)
    assert ready.straggling(2) is None
    assert [cpu_share_of(ready.stragglers, node) for node in range(4)] == [None, None, 0.1, None]


def test_what_cannot_be_limited_is_told_before_processes_start(
    file: Path, decentral: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(proc: Path) -> None:
        raise LookupError("no cgroups")

    monkeypatch.setattr(Home, "found", refuses)
    ended = decentral("train", str(file), "--nproc", "4", "--straggler", "node=3,cpu=0.1")
    assert ended.code == 3
    assert "a process cannot be given 0.1 of a core here: no cgroups; that takes" in ended.err
    assert "slowdown: 10" in ended.err


def test_a_real_node_and_a_simulated_one_stall_at_the_same_times(file: Path) -> None:
    asked = ["stragglers=[{node: 1, every_s: 2, lasting_s: 0.5}]", "clock={gradient_s: 0.1}"]
    ready, again = prepare_all(load(file, asked).experiment, [methods(load(file, asked).experiment)[0]] * 2, 0)
    real, simulated = ready.straggling(1), again.straggling(1)
    assert ready.straggling(0) is None
    assert real is not None
    assert simulated is not None
    ends = [one._slowed[0].spells.next_end_s(1000.0) for one in (real, simulated)]
    assert ends[0] == ends[1]


def test_what_asynchronous_nodes_cannot_do_is_refused_before_they_start(file: Path) -> None:
    ready = own_method(load(file, ["algorithm=swift"]).experiment)
    with pytest.raises(ConfigError, match=r"swift is asynchronous: NCCL's links need .* transport: gloo"):
        refuse_unfit_ranks(ready, Transport(name="nccl"))


@pytest.mark.processes
@pytest.mark.timeout(180)
@pytest.mark.long
def test_nobody_waits_for_a_slow_process(file: Path) -> None:
    """The others make many steps while the slow one makes a few: a ratio of counts in one run."""
    asked = ("algorithm=swift", "duration_s=4", "least_gradient_s=0.05", "diagnostics=[]", "evaluate_every_s=2")
    options = [word for setting in asked for word in ("-s", setting)]
    code, _, err = finished(
        file.parent, "train", file.name, "--nproc", "4", "--straggler", "node=3,slowdown=10", "--out", "run", *options
    )
    assert code == 0, err
    rows = [json.loads(line) for line in (file.parent / "run/metrics.jsonl").read_text().splitlines()]
    *others, slow = rows[-1]["free_run"]["steps"]
    assert len(rows) == 3
    assert min(others) >= 5 * slow  # a method whose nodes wait makes as many at each
    assert all(sum(counts) > 0 for counts in rows[-1]["free_run"]["staleness"])
    assert rows[-1]["accuracy"] > 0.6


@pytest.mark.processes
@pytest.mark.timeout(180)
@pytest.mark.long
def test_a_process_that_gets_a_tenth_of_a_core_holds_up_nobody_and_leaves_no_group(file: Path) -> None:
    asked = ("nodes=2", "algorithm=swift", "duration_s=4", "diagnostics=[]", "evaluate_every_s=2")
    options = [word for setting in asked for word in ("-s", setting)]
    code, _, err = finished(
        file.parent, "train", file.name, "--nproc", "2", "--straggler", "node=1,cpu=0.1", "--out", "run", *options
    )
    if code == 3:
        pytest.skip(err)
    assert code == 0, err
    other, slow = json.loads((file.parent / "run/metrics.jsonl").read_text().splitlines()[-1])["free_run"]["steps"]
    assert other >= 3 * slow > 0
    assert [*Home.found().around.glob("decentral-*")] == []
