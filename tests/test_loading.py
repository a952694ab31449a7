"""An experiment file becomes an Experiment whose sections know their places, or one line that says what to mend."""

import subprocess
import sys
from pathlib import Path

import pytest

from decentral.config import Experiment, Section
from decentral.errors import ConfigError
from decentral.loading import Loaded, load

LINES = {
    "nodes": "8",
    "rounds": "100",
    "data": "digits",
    "model": "linear",
    "algorithm": "dsgd",
    "topology": "ring",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str = "", *overrides: str, file: str = "ring.yaml") -> Loaded:
    """The keys of LINES are on lines 1 to 6; `text` replaces theirs, and adds others from line 7 on."""
    lines = {**LINES, **dict(added.split(": ", 1) for added in text.splitlines())}
    Path(file).write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return load(file, overrides)


def line(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text, *overrides)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_sections_know_where_they_stand() -> None:
    experiment = loaded("compare: [{topology: torus}, {algorithm: dsgd, optimizer: {lr: 1}}]").experiment
    assert experiment.path == ()
    assert experiment.data.path == ("data",)
    assert experiment.optimizer.path == ("optimizer",)
    assert [method.path for method in experiment.compare] == [("compare", 0), ("compare", 1)]
    assert experiment.compare[0].topology is not None
    assert experiment.compare[0].topology.path == ("compare", 0, "topology")
    assert experiment.baselines[1].algorithm is not None
    assert experiment.baselines[1].algorithm.path == ("baselines", 1, "algorithm")


def test_the_folder_is_the_files_and_absolute(folder: Path) -> None:
    (folder / "below").mkdir()
    assert loaded(file="below/a.yaml").experiment.folder == (folder / "below").resolve()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ring.yaml", "ring"),
        ("torus 4x4 (new).yml", "torus-4x4-new-"),
        (".hidden.yaml", "hidden"),
        ("é.yaml", "experiment"),
        ("n" * 80 + ".yaml", "n" * 64),
    ],
)
def test_the_name_is_the_files_unless_given(file: str, name: str) -> None:
    assert loaded(file=file).experiment.name == name
    assert loaded("name: mine", file=file).experiment.name == "mine"


def test_overrides_reach_the_experiment_and_later_ones_win() -> None:
    experiment = loaded("", "nodes=4", "nodes=16", "topology.weights=uniform", "compare=[{algorithm: ddp}]").experiment
    assert (experiment.nodes, experiment.topology.name, experiment.topology.weights) == (16, "ring", "uniform")
    assert len(experiment.compare) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "compare: [{topology: torus}, {label: a}]",
            "7:30: compare.1: names nothing to compare; required: at least one of algorithm, topology, optimizer",
        ),
        (
            "baselines: [{}]",
            "7:13: baselines.0: names nothing to compare; required: at least one of algorithm, topology, optimizer",
        ),
        (
            "compare: [{label: a, topology: torus}]\nbaselines: [{label: a, algorithm: ddp}]",
            "8:14: baselines.0.label: 'a' is also the label of compare.0; change one of them",
        ),
        ("nodes: true", "1:1: nodes: found true; required: an integer"),
        ("seeds: [0, true]", "7:12: seeds.1: found true; required: an integer"),
        ("optimizer: {lr: true}", "7:13: optimizer.lr: found true; required: a number"),
        ("seeds: [1, 2, 1]", "7:15: seeds.2: 1 is also seeds.0; one run is made per seed, so remove one"),
        (
            "data: quadratics\npartition: iid",
            "7:1: partition: quadratics are split by nature, one problem per node; remove partition",
        ),
        (
            "data: quadratics\nmodel: mlp",
            "4:1: model.name: found quadratics with model 'mlp'; required: linear, or module:function",
        ),
        (
            "data: quadratics\nmodel: cnn\nseeds: [1, 1]",
            "4:1: model.name: found quadratics with model 'cnn'; required: linear, or module:function (+1 more)",
        ),
        (
            "duration_s: 20\ncompare: [{algorithm: gradient-tracking}]",
            "7:1: duration_s: found 20 s, but dsgd makes 100 rounds however long they take, as do all it is compared "
            "with; leave duration_s out, or take an asynchronous method, as swift",
        ),
        (
            "evaluate_every_s: 2\nduration_s: 20",
            "8:1: duration_s: found 20 s, but dsgd makes 100 rounds however long they take, as do all it is compared "
            "with; leave duration_s and evaluate_every_s out, or take an asynchronous method, as swift",
        ),
    ],
)
def test_what_no_field_can_see_alone_is_refused(text: str, expected: str) -> None:
    assert line(text) == f"ring.yaml:{expected}"


@pytest.mark.parametrize(
    "text",
    [
        "data: quadratics\nmodel: mine:net",
        "evaluate_every: 1000",
        "duration_s: 20\ncompare: [{algorithm: swift}]",
        "duration_s: 20\nbaselines: [{algorithm: async-sgd, topology: star}]",
        "duration_s: 20\ncompare: [{algorithm: 'mine:Method'}]",
        "model: {name: linear, bias: no}",
        "partition: ",
        "nodes: 1e1",
    ],
)
def test_what_is_no_contradiction_passes(text: str) -> None:
    assert isinstance(loaded(text).experiment, Experiment)


def test_an_error_from_an_override_is_placed_at_the_option() -> None:
    assert line("nodes: 0", "nodez=8") == "-s nodez=8: nodez: unknown key; did you mean 'nodes'? (+1 more)"
    assert line("nodes: 0", "optimizer.lr=a").startswith("-s optimizer.lr=a: optimizer.lr: found 'a'; required: ")


def test_later_errors_are_placed_by_the_document() -> None:
    result = loaded("compare: [{topology: {name: torus, rows: 3}}]")
    section: Section | None = result.experiment.compare[0].topology
    assert section is not None
    expected = r"^ring\.yaml:7:36: compare\.0\.topology\.rows: 3 is odd$"
    with pytest.raises(ConfigError, match=expected), result.document.placing():
        raise ConfigError("3 is odd", (*section.path, "rows"))


def test_loading_imports_no_torch() -> None:
    code = "import sys, decentral.loading, decentral.methods; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
