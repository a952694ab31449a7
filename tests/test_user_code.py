"""Functions from outside: their options checked before the call, their faults told in one line."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from decentral.errors import ConfigError
from decentral.user_code import blame, called, checked_options, function_of, imported

AT = ("model",)


def build(nodes: int, *, degree: int = 4, wrap: bool = True, kind: Literal["a", "b"] = "a") -> str:
    return f"{nodes} {degree} {wrap} {kind}"


def refused(function: Callable[..., Any], positional: int = 0, /, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        checked_options(function, options, AT, positional)
    assert str(caught.value).isprintable()
    return caught.value


def test_only_what_was_given_is_passed_on_and_converted() -> None:
    """A default stays the function's own: passed on, it would be frozen at what the signature says."""
    assert checked_options(build, {}, AT, 1) == {}
    assert checked_options(build, {"wrap": "false", "degree": "6"}, AT, 1) == {"degree": 6, "wrap": False}


def test_positional_parameters_are_no_options() -> None:
    error = refused(build, 1, nodes=8)
    assert error.at == ("model", "nodes")
    assert str(error).startswith("unknown key")
    assert checked_options(build, {"nodes": 8}, AT, 0) == {"nodes": 8}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"degre": 4}, "unknown key; did you mean 'degree'?"),
        ({"zzz": 4}, "unknown key; known: degree, kind, wrap"),
        ({"degree": 2.5}, "found 2.5"),
        ({"degree": "many"}, "found 'many'"),
        ({"degree": None}, "found None"),
        ({"degree": [1]}, "found [1]"),
        ({"wrap": 7}, "found 7"),
        ({"kind": "c"}, "found 'c'"),
    ],
)
def test_a_wrong_option_is_refused_at_its_key(options: dict[str, Any], said: str) -> None:
    error = refused(build, 1, **options)
    assert said in str(error)
    assert error.at == ("model", *options)


def test_what_is_missing_is_named() -> None:
    def needs(*, width: int, depth: int = 2) -> None: ...

    error = refused(needs, depth=3)
    assert (str(error), error.at) == ("Field required", ("model", "width"))


def test_a_function_without_options_says_so() -> None:
    assert str(refused(lambda: None, width=3)) == "unknown key; it takes no options"


def test_an_option_without_annotation_takes_anything() -> None:
    def loose(*, width=3):  # type: ignore[no-untyped-def]
        return width

    for value in (1, "text", [1, 2], None):
        assert checked_options(loose, {"width": value}, AT) == {"width": value}


def test_bounds_in_annotations_hold() -> None:
    def bounded(*, p: Annotated[float, Field(gt=0, le=1)] = 0.5) -> None: ...

    assert checked_options(bounded, {"p": 1}, AT) == {"p": 1.0}
    assert "less than or equal to 1" in str(refused(bounded, p=2))


NAMES = [
    "at",
    "function",
    "options",
    "arguments",
    "copy",
    "json",
    "schema",
    "model_config",
    "model_fields",
    "_depth",
    "self",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_an_option_may_have_any_name(name: str) -> None:
    """Symptoms: an option `at` met our own parameter of that name (TypeError: multiple values), `copy` and `json` made
    pydantic warn of shadowing on the user's terminal, `_depth` and `model_config` it refused altogether.
    """
    scope: dict[str, Any] = {}
    exec(f"def own(first, *, {name}: int = 1): return first, {name}", scope)  # the name is the test's own
    options = checked_options(scope["own"], {name: "5"}, AT, 1)
    assert options == {name: 5}
    assert called(scope["own"], "x", options=options, at=AT) == ("x", 5)
    assert refused(scope["own"], 1, **{name: "many"}).at == ("model", name)


def test_annotations_that_cannot_be_resolved_say_nothing() -> None:
    """`from __future__ import annotations` with a name imported under TYPE_CHECKING alone is common in user code, and
    `int | "Missing"` cannot even be evaluated. Symptom: a traceback of pydantic's, `Options is not fully defined`.
    """
    scope: dict[str, Any] = {}
    text = (
        "from __future__ import annotations\ndef own(*, a: int = 1, b: Missing = 2, c: int | 'No' = 3): return a, b, c"
    )
    exec(text, scope)
    assert checked_options(scope["own"], {"b": "x", "c": [1]}, AT) == {"b": "x", "c": [1]}


def test_a_callable_without_a_signature_is_refused() -> None:
    assert "options cannot be checked; call it from a function of your own" in str(refused(dict, width=1))


def test_what_a_function_raises_becomes_one_line_with_its_place() -> None:
    def fails(n: int) -> None:
        raise ZeroDivisionError(f"no\n  {n}")

    with pytest.raises(ConfigError) as caught:
        called(fails, 3, options={}, at=AT)
    line = fails.__code__.co_firstlineno + 1
    assert (
        str(caught.value)
        == f"{__name__}.{fails.__qualname__} failed: test_user_code.py:{line}: ZeroDivisionError: no 3"
    )
    assert caught.value.at == AT


def test_a_fault_that_the_function_tells_itself_goes_through() -> None:
    def tells() -> None:
        raise ConfigError("mine", ("data",))

    with pytest.raises(ConfigError, match=r"^mine$") as caught:
        called(tells, options={}, at=AT)
    assert caught.value.at == ("data",)


def test_what_is_no_plain_function_is_called_and_blamed_too() -> None:
    partial = functools.partial(int, base=2)
    assert called(partial, "101", options={}, at=AT) == 5
    with pytest.raises(ConfigError, match=r"functools\.partial failed: .*ValueError: invalid literal"):
        called(partial, "x", options={}, at=AT)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of experiments beside the current one; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "experiments").mkdir()
    yield tmp_path / "experiments"
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_a_module_is_found_beside_the_experiment_before_the_current_folder(folder: Path) -> None:
    Path("own_nets.py").write_text("def net(): return 'current'")
    assert imported("own_nets:net", folder, AT)() == "current"
    Path("own_both.py").write_text("def net(): return 'current'")
    (folder / "own_both.py").write_text("def net(): return 'experiment'")
    assert imported("own_both:net", folder, AT)() == "experiment"


def import_fault(name: str, folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        imported(name, folder, AT)
    assert caught.value.at == AT
    return str(caught.value)


@pytest.mark.parametrize("name", ["own_none", "own_none.nets", "own_package.none", "own_package.none.nets"])
def test_a_missing_module_is_told_with_where_it_belongs(folder: Path, name: str) -> None:
    (folder / "own_package").mkdir()
    (folder / "own_package" / "__init__.py").touch()
    said = import_fault(f"{name}:net", folder)
    assert said == f"no module {name!r} in {folder} or on the Python path; put {name}.py beside the experiment"


def test_a_module_that_misses_another_is_to_blame_itself(folder: Path) -> None:
    (folder / "own_needs.py").write_text("x = 1\nimport own_missing_dependency\n")
    said = import_fault("own_needs:net", folder)
    assert said.startswith("own_needs failed on import: own_needs.py:2: ModuleNotFoundError")
    assert "own_missing_dependency" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n1 / 0\n", "own_bad.py:2: ZeroDivisionError: division by zero"),
        ("def net(:\n", "own_bad.py:1: SyntaxError: invalid syntax"),
        ("raise ModuleNotFoundError('by hand')", "own_bad.py:1: ModuleNotFoundError: by hand"),
    ],
)
def test_a_module_that_fails_on_import_is_told_with_its_line(folder: Path, text: str, said: str) -> None:
    (folder / "own_bad.py").write_text(text)
    assert import_fault("own_bad:net", folder) == f"own_bad failed on import: {said}"


def test_a_missing_function_is_told_with_the_nearest(folder: Path) -> None:
    (folder / "own_some.py").write_text("def small_net(): ...\ndef _hidden(): ...\nnumber = 3\n")
    said = import_fault("own_some:smal_net", folder)
    assert said == "own_some has no function 'smal_net'; did you mean 'small_net'?"
    assert import_fault("own_some:number", folder) == "own_some has no function 'number'; known: small_net"
    assert function_of(sys.modules["own_some"], "small_net", AT)() is None


def test_blame_names_the_innermost_frame() -> None:
    def inner() -> None:
        raise KeyError("deep")

    def outer() -> None:
        inner()

    with pytest.raises(KeyError) as caught:
        outer()
    line = inner.__code__.co_firstlineno + 1
    assert blame(caught.value) == f"test_user_code.py:{line}: KeyError: 'deep'"


def test_blame_is_short_and_on_one_line() -> None:
    text = blame(ValueError("a\nb\t" + "long " * 200))
    assert text.startswith("ValueError: a b long")
    assert len(text) < 330
    assert text.isprintable()
