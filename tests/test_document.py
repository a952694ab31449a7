"""A document is plain data with places, and whatever is not in the strict subset of YAML is one located line."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decentral.document import Document
from decentral.errors import ConfigError

RING = """\
# sixteen nodes
nodes: 16
topology: ring
optimizer:
  lr: 0.1
compare:
  - label: a
  - algorithm: {name: dsgd, every: 4}
seeds: [3, 4]
partition:
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(content: str | bytes) -> Document:
    Path("ring.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    return Document.read("ring.yaml")


def test_the_tree_is_plain_and_every_key_and_entry_has_its_place() -> None:
    read = document(RING)
    assert read.tree["compare"] == [{"label": "a"}, {"algorithm": {"name": "dsgd", "every": 4}}]
    assert read.places == {
        (): (2, 1),
        ("nodes",): (2, 1),
        ("topology",): (3, 1),
        ("optimizer",): (4, 1),
        ("optimizer", "lr"): (5, 3),
        ("compare",): (6, 1),
        ("compare", 0): (7, 5),
        ("compare", 0, "label"): (7, 5),
        ("compare", 1): (8, 5),
        ("compare", 1, "algorithm"): (8, 5),
        ("compare", 1, "algorithm", "name"): (8, 17),
        ("compare", 1, "algorithm", "every"): (8, 29),
        ("seeds",): (9, 1),
        ("seeds", 0): (9, 9),
        ("seeds", 1): (9, 12),
        ("partition",): (10, 1),
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "1:1: the file is empty; required: a mapping of keys to values, such as 'nodes: 8'"),
        ("# nothing\n", "1:1: the file is empty; required: a mapping of keys to values, such as 'nodes: 8'"),
        ("# a list\n- a", "2:1: found ['a']; required: a mapping of keys to values, such as 'nodes: 8'"),
        ("hello", "1:1: found 'hello'; required: a mapping of keys to values, such as 'nodes: 8'"),
        ("nodes: 8\nnodes: 9", "2:1: duplicate key 'nodes', first on line 1; keep one of them"),
        (b"a: 1\nb: \xff", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_is_no_mapping_is_one_located_line(content: str | bytes, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        document(content)
    assert str(caught.value) == f"ring.yaml:{expected}"


def test_the_place_of_a_missing_file_and_of_a_folder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^none\.yaml:1:1: no such file; required: the path of an experiment file$"):
        Document.read("none.yaml")
    with pytest.raises(ConfigError, match=r": a directory; required: the path of an experiment file$"):
        Document.read(folder)
    Path("plain").touch()
    with pytest.raises(ConfigError, match=r"^plain/a\.yaml:1:1: cannot be read: Not a directory$"):
        Document.read("plain/a.yaml")


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
@settings(max_examples=150, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_document_or_one_located_line(content: bytes) -> None:
    check_total(content)


@given(st.text("[]{}:,-&*!|>#'\"\\%@?\n\t ~.0aux"))
@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_yaml_like_text_gives_a_document_or_one_located_line(content: str) -> None:
    check_total(content.encode())


def check_total(content: bytes) -> None:
    told = ""
    try:
        assert isinstance(document(content).tree, dict)
    except ConfigError as error:
        told = str(error)
    assert re.fullmatch(r"(ring\.yaml:\d+:\d+: \S.*)?", told)
    assert told.isprintable()


@given(st.text("=.0[]{}:,-&*!'\"\n\t acompretylgid"))
@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_override_gives_a_document_or_one_line(assignment: str) -> None:
    read, told = document(RING), ""
    try:
        assert read.override(assignment).overridden
    except ConfigError as error:
        told = str(error)
    assert re.fullmatch(r"(-s .*: \S.*)?", told)
    assert told.isprintable()


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("optimizer.lr=0.05", ("optimizer", "lr"), 0.05),
        ("nodes=1e-3", ("nodes",), 1e-3),
        (" nodes = 8 ", ("nodes",), 8),
        ("compare.1.algorithm.every=8", ("compare", 1, "algorithm", "every"), 8),
        ("compare.0.topology.name=ring", ("compare", 0, "topology", "name"), "ring"),
        ("seeds.1=9", ("seeds", 1), 9),
        ("seeds=[0,1,2]", ("seeds",), [0, 1, 2]),
        ("topology={name: torus, rows: 2}", ("topology",), {"name": "torus", "rows": 2}),
        ("transport.timeout_s=5", ("transport", "timeout_s"), 5),
        ("partition.alpha=0.1", ("partition", "alpha"), 0.1),
        ("name=a=b", ("name",), "a=b"),
        ("compare=no", ("compare",), "no"),
        ("partition=", ("partition",), None),
    ],
)
def test_an_override_sets_one_place_and_becomes_its_address(
    assignment: str, path: tuple[str | int, ...], value: object
) -> None:
    before = document(RING)
    after = before.override(assignment)
    found = after.tree
    for key in path:
        found = found[key]  # type: ignore[index]
    assert found == value
    assert after.locate(path) == after.locate((*path, "below")) == f"-s {assignment.strip()}"
    assert before == document(RING)


def test_a_shorthand_on_the_way_of_an_override_widens() -> None:
    after = document(RING).override("topology.weights=uniform")
    assert after.tree["topology"] == {"name": "ring", "weights": "uniform"}
    assert after.locate(("topology", "name")) == "ring.yaml:3:1"


def test_a_later_override_wins_with_its_address() -> None:
    after = document(RING).override("optimizer.lr=1").override("optimizer={lr: 2}").override("nodes=4")
    assert after.tree["optimizer"] == {"lr": 2}
    assert after.locate(("optimizer", "lr")) == "-s optimizer={lr: 2}"
    assert after.locate(("seeds",)) == "ring.yaml:9:1"


FORM = "required: -s key=value, such as -s optimizer.lr=0.05 or -s compare.0.topology.name=ring"


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("nodes", f"no '='; {FORM}"),
        ("=3", f"an empty key; {FORM}"),
        ("a..b=3", f"an empty key; {FORM}"),
        ("compare.2.label=x", f"compare is a list of 2, counted from 0, and has no entry '2'; {FORM}"),
        ("compare.-1.label=x", f"compare is a list of 2, counted from 0, and has no entry '-1'; {FORM}"),
        ("compare.label=x", f"compare is a list of 2, counted from 0, and has no entry 'label'; {FORM}"),
        ("nodes.lr=3", f"nodes is 16, and has no 'lr'; {FORM}"),
        ("topology.0=3", f"topology is 'ring', and has no '0'; {FORM}"),
        ("baselines.0.label=x", f"baselines is not set, and has no '0'; {FORM}"),
        ("seeds=[0,1", "while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("nodes=012", "found 012; drop the leading zero (12), or quote it"),
        ("nodes=&a 3", "anchor &a is not allowed; write the value out where it is used"),
        ("nodes=!!int 3", "tag !!int is not allowed; write plain values"),
    ],
)
def test_a_malformed_override_shows_the_right_form(assignment: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        document(RING).override(assignment)
    assert str(caught.value) == f"-s {assignment}: {expected}"


def test_an_override_is_quoted_on_one_line_and_not_too_deep() -> None:
    with pytest.raises(ConfigError, match=r"^-s (a\.){28}a\.\.\.: 30 keys deep; at most 20$"):
        document(RING).override(".".join("a" * 30) + "=1")
    with pytest.raises(ConfigError, match=r"^-s a\\nb: no '='"):
        document(RING).override("a\nb")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("optimizer", "lr"), "ring.yaml:5:3"),
        (("optimizer", "momentum"), "ring.yaml:4:1"),
        (("compare", 1, "algorithm", "dsgd", "every"), "ring.yaml:8:5"),
        (("compare", 5), "ring.yaml:6:1"),
        (("data", "name"), "ring.yaml:2:1"),
        ((), "ring.yaml:2:1"),
    ],
)
def test_locate_gives_the_longest_known_prefix(path: tuple[str | int, ...], place: str) -> None:
    assert document(RING).locate(path) == place


def test_placing_puts_the_place_before_errors_that_name_a_path() -> None:
    read = document(RING).override("topology.rows=3")
    with pytest.raises(ConfigError, match=r"^ring\.yaml:3:1: topology\.name: no such graph$"), read.placing():
        raise ConfigError("no such graph", ("topology", "name"))
    with pytest.raises(ConfigError, match=r"^-s topology\.rows=3: topology\.rows: too few$"), read.placing():
        raise ConfigError("too few", ("topology", "rows"))
    with pytest.raises(ConfigError, match=r"^ring\.yaml:2:1: odd$"), read.placing():
        raise ConfigError("odd", ())
    with pytest.raises(ConfigError, match=r"^elsewhere$"), read.placing():
        raise ConfigError("elsewhere")


def test_nested_placing_places_once() -> None:
    read = document(RING)
    with pytest.raises(ConfigError, match=r"^ring\.yaml:2:1: nodes: odd$"), read.placing(), read.placing():
        raise ConfigError("odd", ("nodes",))
