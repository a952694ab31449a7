"""Each fault is told by its place, its dotted path, what was found and what is required, or by the nearest name."""

import pytest
from pydantic import ValidationError

from decentral.algorithms import ALGORITHMS, ASYNCHRONOUS_METHODS, CONTROLLERS, HUB_METHODS, TOKEN_METHODS
from decentral.config import CNN, MLP, MNIST, Digits, Experiment, Linear, Method, Optimizer, OwnCode, Section, Topology
from decentral.document import Document
from decentral.faults import faults_in, refusal
from decentral.strict_yaml import parsed

NEEDED = {"nodes": 8, "rounds": 9, "data": "digits", "model": "linear", "algorithm": "dsgd", "topology": "ring"}
METHODS = ", ".join(sorted([*ALGORITHMS, "ddp"]))
DATA = "one of digits, mnist, cifar10, quadratics, pydoc-topics, or module:function"


def line(text: str) -> str:
    tree, places = parsed(text)
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(tree)
    return str(refusal(Document("ring.yaml", tree, places), faults_in(caught.value)))


def told(text: str) -> str:
    """Of an experiment whose NEEDED keys are on lines 1 to 6; `text` replaces them, and adds others from line 7 on."""
    lines = NEEDED | dict(added.split(": ", 1) for added in text.splitlines())
    return line("".join(f"{key}: {value}\n" for key, value in lines.items()))


def purpose(section: type[Section], field: str) -> str:
    return " ".join((section.model_fields[field].description or "").split()).rstrip(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodez: 8", "7:1: nodez: unknown key; did you mean 'nodes'?"),
        (
            "data: {name: digits, test_fracton: 1}",
            "3:22: data.test_fracton: unknown key; did you mean 'test_fraction'?",
        ),
        ("data: {name: mnist, rooot: a}", "3:21: data.rooot: unknown key; did you mean 'root'? (+1 more)"),
        ("data: {name: cifar10, rot: a}", "3:23: data.rot: unknown key; did you mean 'root'? (+1 more)"),
        ("data: {name: quadratics, zeta: 1}", "3:26: data.zeta: unknown key; did you mean 'zeta2'?"),
        ("partition: {name: iid, alpha: 1}", "7:24: partition.alpha: unknown key; known: name"),
        ("partition: {name: dirichlet, alfa: 1}", "7:30: partition.alfa: unknown key; did you mean 'alpha'?"),
        ("partition: {name: shards, pernode: 1}", "7:27: partition.pernode: unknown key; did you mean 'per_node'?"),
        ("model: {name: linear, bais: true}", "4:23: model.bais: unknown key; did you mean 'bias'?"),
        ("model: {name: mlp, hiden: [8]}", "4:20: model.hiden: unknown key; did you mean 'hidden'?"),
        ("model: {name: cnn, chanels: 8}", "4:20: model.chanels: unknown key; did you mean 'channels'?"),
        ("algorithm: {name: dsgd, evry: 4}", "5:25: algorithm.evry: unknown key; did you mean 'every'?"),
        ("algorithm: {name: allreduce, lr: 1}", "5:30: algorithm.lr: unknown key; known: name"),
        ("algorithm: {name: ddp, names: 1}", "5:24: algorithm.names: unknown key; did you mean 'name'?"),
        (
            "algorithm: {name: consensus-control, of: {name: dsgd, evry: 4}, target: 1}",
            "5:55: algorithm.of.evry: unknown key; did you mean 'every'?",
        ),
        ("transport: {timeout: 3}", "7:13: transport.timeout: unknown key; did you mean 'timeout_s'?"),
        ("compare: [{topologgy: ring}]", "7:12: compare.0.topologgy: unknown key; did you mean 'topology'?"),
        (
            "compare: [{algorithm: {name: dsgd, ordr: 1}}]",
            "7:36: compare.0.algorithm.ordr: unknown key; did you mean 'order'?",
        ),
        ("nodes: x\nrounds: x\nmodle: 1", "7:1: modle: unknown key; did you mean 'model'? (+2 more)"),
    ],
)
def test_an_unknown_key_suggests_one_of_its_section(text: str, expected: str) -> None:
    assert told(text) == f"ring.yaml:{expected}"


METHODS = ", ".join(sorted([*ALGORITHMS, *TOKEN_METHODS, *ASYNCHRONOUS_METHODS, *HUB_METHODS, *CONTROLLERS, "ddp"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: digit", "3:1: data.name: unknown name 'digit'; did you mean 'digits'?"),
        ("data: {name: digit}", "3:8: data.name: unknown name 'digit'; did you mean 'digits'?"),
        (
            "data: zzz",
            "3:1: data.name: unknown name 'zzz'; known: cifar10, digits, mnist, pydoc-topics, quadratics, "
            "or module:function",
        ),
        (
            "algorithm: zzz",
            f"5:1: algorithm.name: unknown name 'zzz'; known: {METHODS}, or module:function",
        ),
        ("partition: shard", "7:1: partition.name: unknown name 'shard'; did you mean 'shards'?"),
        ("transport: glo", "7:1: transport.name: unknown name 'glo'; did you mean 'gloo'?"),
        ("data: {test_fraction: 0.1}", f"3:1: data.name: missing; required: {DATA}"),
        ("data: {name: [digits]}", f"3:8: data.name: found ['digits']; required: {DATA}"),
        ("data: 3", f"3:1: data: found 3; required: {DATA}"),
        ("data: ", f"3:1: data: found null; required: {DATA}"),
        (
            "topology: [ring]",
            "6:1: topology: found ['ring']; required: a name, or a mapping with name, weights, scaling, schedule",
        ),
        (
            "topology: {name: ring, scaling: 3}",
            "6:24: topology.scaling: found 3; required: one of none, lazy, optimal, or a number, above 0, at most 2 - "
            "W_s = (1-s) I + s W in place of W. lazy: s = 1/2. optimal: what shrinks disagreement fastest, by the "
            "spectrum, but no more than leaves every node a weight of its own that is not negative",
        ),
        ("dtype: half", "7:1: dtype: unknown value 'half'; known: float32, float64"),
        ("dtype: float23", "7:1: dtype: unknown value 'float23'; did you mean 'float32'?"),
    ],
)
def test_an_unknown_name_or_another_kind_of_value(text: str, expected: str) -> None:
    assert told(text) == f"ring.yaml:{expected}"


NODES = "an integer, at least 1, at most 100000"
SEEDS = "a list, not empty, each an integer, at least 0, below 2147483648"
METHOD = "a mapping with label, algorithm, topology, optimizer"


@pytest.mark.parametrize(
    ("text", "expected", "section", "field"),
    [
        ("nodes: 0", f"1:1: nodes: found 0; required: {NODES}", Experiment, "nodes"),
        ("nodes: 4.5", f"1:1: nodes: found 4.5; required: {NODES}", Experiment, "nodes"),
        ("nodes: many", f"1:1: nodes: found 'many'; required: {NODES}", Experiment, "nodes"),
        ("name: a b", "7:1: name: found 'a b'; required: text", Experiment, "name"),
        ("dtype: 32", "7:1: dtype: found 32; required: one of float32, float64", Experiment, "dtype"),
        ("seeds: []", f"7:1: seeds: found []; required: {SEEDS}", Experiment, "seeds"),
        ("seeds: 3", f"7:1: seeds: found 3; required: {SEEDS}", Experiment, "seeds"),
        ("target: x", "7:1: target: found 'x'; required: a number", Experiment, "target"),
        ("compare: [ring]", f"7:11: compare.0: found 'ring'; required: {METHOD}", Experiment, "compare"),
        (
            "compare: [{label: '', topology: a}]",
            "7:12: compare.0.label: found ''; required: text, not empty, at most 60 characters",
            Method,
            "label",
        ),
        ("optimizer: {lr: 0}", "7:13: optimizer.lr: found 0; required: a number, above 0", Optimizer, "lr"),
        ("optimizer: {lr: .inf}", "7:13: optimizer.lr: found inf; required: a number, above 0", Optimizer, "lr"),
        ("optimizer: adam", "7:1: optimizer.name: found 'adam'; required: text", Optimizer, "name"),
        ("topology: {weights: given}", "6:1: topology.name: missing; required: text, not empty", Topology, "name"),
        ("data: 'my data:load'", "3:1: data.name: found 'my data:load'; required: text", OwnCode, "name"),
        ("data: mnist", "3:1: data.root: missing; required: a path", MNIST, "root"),
        ("data: {name: mnist, root: 3}", "3:21: data.root: found 3; required: a path", MNIST, "root"),
        (
            "data: {name: digits, test_fraction: 1}",
            "3:22: data.test_fraction: found 1; required: a number, above 0, below 1",
            Digits,
            "test_fraction",
        ),
        (
            "model: {name: mlp, hidden: [8, 0]}",
            "4:32: model.hidden.1: found 0; required: an integer, at least 1",
            MLP,
            "hidden",
        ),
        (
            "model: {name: cnn, channels: 3}",
            "4:20: model.channels: found 3; required: an integer, at least 2, a multiple of 2",
            CNN,
            "channels",
        ),
        ("model: {name: linear, bias: 3}", "4:23: model.bias: found 3; required: true or false", Linear, "bias"),
    ],
)
def test_a_value_out_of_bounds_says_what_is_required_and_for_what(
    text: str, expected: str, section: type[Section], field: str
) -> None:
    assert told(text) == f"ring.yaml:{expected} - {purpose(section, field)}"


def test_a_missing_key_is_placed_at_the_section_that_lacks_it() -> None:
    needed = f"{NODES} - {purpose(Experiment, 'nodes')}"
    assert line("# no nodes\nrounds: 5\n") == f"ring.yaml:2:1: nodes: missing; required: {needed} (+4 more)"


def test_the_first_in_the_file_is_told_and_the_others_counted() -> None:
    needed = f"{NODES} - {purpose(Experiment, 'nodes')}"
    assert told("rounds: x\nnodes: 0") == f"ring.yaml:1:1: nodes: found 0; required: {needed} (+1 more)"
