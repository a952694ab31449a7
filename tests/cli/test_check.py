"""`check` finds whatever is wrong, in one line with the place, and exits with 2."""

from pathlib import Path

import pytest

from decentral.shipped import shipped
from tests.cli.conftest import SMALL, Command

EXPERIMENTS = sorted(shipped("launch").glob("*.yaml"))

SEVEN = "import networkx as nx\n\ndef build(nodes):\n    return nx.cycle_graph(7)\n"
APART = "import networkx as nx\n\ndef build(nodes):\n    return nx.Graph([(0, 1), (2, 3)])\n"
NEGATIVE = """\
import networkx as nx

def build(nodes):
    graph = nx.cycle_graph(nodes)
    graph.add_edge(2, 2, weight=-0.5)
    return graph
"""
ENTITY_BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<graph edgedefault="undirected"><node id="&c;"/></graph></graphml>
"""
NARROW_MODEL = """\
from torch import nn

def build(width: int = 3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width))
"""
ALIAS_BOMB = SMALL + "compare: [&a [x, x], &b [*a, *a], &c [*b, *b], *c]\n"


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_shipped_experiment_is_sound(decentral: Command, file: Path) -> None:
    result = decentral("check", str(file), "--json")
    assert (result.code, result.json["ok"]) == (0, True)
    told = [line.partition(": nodes hold different data")[0] for line in result.err.splitlines()]
    biased = "decentral: warning: async-sgd with assign: ready, by which fast nodes get more jobs"
    assert told == ([biased] if file.stem == "stragglers" else []), "it compares what that costs"


def test_it_lists_the_methods_that_speedup_would_run(decentral: Command, small: Path) -> None:
    result = decentral("check", str(small))
    assert result.code == 0
    assert [line.strip() for line in result.out.splitlines()[1:]] == ["dsgd ring", "allreduce", "ddp"]


@pytest.mark.parametrize(
    ("content", "found", "required"),
    [
        (SEVEN, "my_graph.py returned 7 nodes for nodes=4", "exactly the nodes 0..nodes-1"),
        (APART, "my_graph.py", "connected"),
        (NEGATIVE, "2-2", "weight"),
        ("def build(nodes)\n", "my_graph.py:1: SyntaxError", ""),
        (
            "def build(nodes):\n    raise RuntimeError('no such rack')\n",
            "my_graph.py:2: RuntimeError: no such rack",
            "",
        ),
        ("def built(nodes):\n    pass\n", "no function 'build'", "did you mean 'built'"),
    ],
)
def test_a_faulty_graph_of_the_users_own(
    decentral: Command, small: Path, content: str, found: str, required: str
) -> None:
    (small.parent / "my_graph.py").write_text(content)
    result = decentral("check", str(small), "-s", "topology=./my_graph.py")
    assert result.code == 2
    assert result.out == ""
    assert found in result.line
    assert required in result.line


def test_a_graphml_file_with_an_entity_bomb(decentral: Command, small: Path) -> None:
    (small.parent / "bomb.graphml").write_text(ENTITY_BOMB)
    result = decentral("check", str(small), "-s", "topology=bomb.graphml")
    assert result.code == 2
    assert "bomb.graphml" in result.line


def test_a_yaml_alias_bomb(decentral: Command, small: Path) -> None:
    small.write_text(ALIAS_BOMB)
    result = decentral("check", str(small))
    assert result.code == 2
    assert "small.yaml:13:11: " in result.line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("topologee=ring", "unknown key; did you mean 'topology'?"),
        ("topology.degre=3", "topology.degre: unknown key"),
        ("optimizer.momentun=0.9", "optimizer.momentun: unknown key; did you mean 'momentum'?"),
        ("optimizer.name=torch.optim.SDG", "did you mean 'SGD'?"),
        ("optimizer={name: torch.optim.LBFGS}", "without a closure"),
        ("optimizer.momentum=-1", "Invalid momentum value"),
        ("model=mlpp", "did you mean 'mlp'?"),
        ("model.hidden=[0]", "model.hidden.0"),
        ("nodes=0", "nodes"),
        ("nodes=1438", "1438 nodes with at least 2 samples each"),
        ("topology.weights=uniform", None),
        ("topology={name: star, weights: uniform}", "use weights: metropolis"),
        ("topology=davis", "32"),
        ("data={name: mnist, root: nowhere}", "nowhere"),
        ("model=nowhere:build", "no module 'nowhere'"),
        ("data=quadratics", "quadratics"),
        ("algorithm={name: dsgd, compression: fp16}", None),
        ("algorithm={name: dsgd, compression: {name: top-k, fraction: 0.01}}", "algorithm.compression: found top-k, "),
        ("algorithm={name: dsgd, compression: topk}", "algorithm.compression.name: unknown name 'topk'; did you mean"),
        (
            "algorithm={name: dsgd, compression: {name: top-k, fraction: 2}}",
            "algorithm.compression.fraction: found 2; required: a number, above 0, at most 1",
        ),
        (
            "algorithm={name: dsgd, compression: {name: top-k, values: int9}}",
            "algorithm.compression.values.name: unknown name 'int9'; did you mean 'int8'?",
        ),
        ("algorithm={name: dsgd, compression: {name: qsgd, bits: 3}}", "algorithm.compression.bits: found 3; required"),
    ],
)
def test_one_line_for_one_override(decentral: Command, small: Path, override: str, line: str | None) -> None:
    result = decentral("check", str(small), "-s", override)
    if line is None:
        assert (result.code, result.err) == (0, "")
    else:
        assert result.code == 2
        assert line in result.line


@pytest.mark.parametrize("verb", ["train", "simulate"])
def test_a_gpu_that_is_missing_is_one_line_and_no_folder(decentral: Command, small: Path, verb: str) -> None:
    result = decentral(verb, str(small), "-s", "device=cuda:99")
    assert result.code == 3
    assert result.line.startswith("device: cuda:99, but ")
    assert not (small.parent / "runs").exists()


def test_nccl_without_a_gpu_is_one_line_and_no_folder(decentral: Command, small: Path) -> None:
    result = decentral("train", str(small), "-s", "transport=nccl")
    assert result.code == 2
    assert result.line.endswith("this rank computes on the CPU; set device: cuda, or use auto")
    assert not (small.parent / "runs").exists()


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_what_only_plans_needs_no_gpu(decentral: Command, small: Path, verb: str) -> None:
    assert decentral(verb, str(small), "-s", "device=cuda:99").code == 0


def test_groups_must_divide_the_nodes(decentral: Command, small: Path) -> None:
    result = decentral("check", str(small), "-s", "algorithm={name: hierarchical, group: 3}")
    assert result.code == 2
    assert result.line.endswith("nodes: 4 do not fall into groups of 3; group must divide nodes")
    assert "algorithm.group" in result.line


def test_explain_draws_the_graph_of_groups_and_counts_bytes_of_nodes(decentral: Command, small: Path) -> None:
    plans = {}
    for between in ("leaders", "ranks", "slices"):
        choice = f"algorithm={{name: hierarchical, group: 2, between: {between}}}"
        plan = decentral("explain", str(small), "-s", choice, "--json").json["methods"][0]
        assert plan["name"] == f"hierarchical 2 {between} ring"
        assert plan["topology"]["nodes"] == 2
        plans[between] = plan["bytes_per_round_busiest_node"]
    model = 4 * 1210  # 64 x 16 + 16 + 16 x 10 + 10 numbers
    assert plans == {
        "leaders": 3 * model + 64,  # one neighbor; two vectors are averaged inside, each at 2 (k - 1) / k of its size
        "ranks": 2 * model + 64,
        "slices": 2 * model + (model // 2 + 7) // 8 * 8 + 64,
    }


def test_json_carries_the_fault_too(decentral: Command, small: Path) -> None:
    result = decentral("check", str(small), "-s", "nodes=0", "--json")
    assert result.code == result.json["exit_code"] == 2
    assert result.json["error"] == result.line


def test_a_model_whose_outputs_do_not_fit_the_classes(decentral: Command, small: Path) -> None:
    (small.parent / "narrow_model.py").write_text(NARROW_MODEL)
    result = decentral("check", str(small), "-s", "model=narrow_model:build")
    assert result.code == 2
    assert "(2, 3)" in result.line
    assert "(2, 10)" in result.line
    good = decentral("check", str(small), "-s", "model={name: narrow_model:build, width: 10}", "--json")
    assert (good.code, good.json["parameters"]) == (0, 650)
