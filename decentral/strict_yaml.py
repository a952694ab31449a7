"""YAML text to plain dicts, lists and scalars with their places, in a strict subset without surprises.

Scalars follow YAML 1.2: `no` and `12:30` are text, `1e-3` is a number. Refused: anchors and aliases, tags, duplicate
keys, keys that are not text, several documents, and more than the MAX_ limits below.
"""

import codecs
import re
from typing import Any

import yaml

from decentral.config import KeyPath

Place = tuple[int, int]
"""Line and column, both from 1."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 20_000
_MAX_DIGITS = 400
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_CONSTANTS = {"null": None, "~": None, "": None, "true": True, "false": False}


class RefusedError(Exception):
    """Text outside the subset.

    Args:
        problem: one line: what was found, and what is required instead.
        place: where.
    """

    def __init__(self, problem: str, place: Place = (1, 1)) -> None:
        super().__init__(" ".join(problem.split()))
        self.place = place


def one_line(text: str, limit: int = 60) -> str:
    """The text without line breaks and control characters, cut to `limit` characters."""
    plain = text if text.isprintable() else repr(text)[1:-1]
    return plain if len(plain) <= limit else f"{plain[: limit - 3]}..."


def shown(value: object) -> str:
    """A value on one line: text in quotes, the constants as YAML has them."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return one_line(repr(value))


def decoded(data: bytes) -> str:
    """The text of a file.

    Raises:
        RefusedError: more than 1 MB, or not UTF-8.
    """
    if len(data) > MAX_BYTES:
        raise RefusedError(f"the file has more than {MAX_BYTES:,} bytes; required: an experiment file, not data")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        place = _place_after(before)
        raise RefusedError(
            f"byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8", place
        ) from error


def parsed(text: str) -> tuple[Any, dict[KeyPath, Place]]:
    """The data in the text, None if there is none, and the places of the root, of mapping keys and of list entries.

    Raises:
        RefusedError: text outside the subset.
    """
    try:
        root = _Loader(text).root()
    except yaml.reader.ReaderError as error:
        problem = f"character #x{error.character:04x} is not allowed in YAML; remove it"
        raise RefusedError(problem, _place_after(text[: error.position])) from error
    except yaml.MarkedYAMLError as error:
        parts = (error.context, error.problem)
        raise RefusedError(", ".join(part for part in parts if part), _place(error.problem_mark)) from error
    places: dict[KeyPath, Place] = {}
    if root is None:
        return None, places
    places[()] = _place(root.start_mark)
    return _value(root, (), places), places


def _place(mark: yaml.Mark | None) -> Place:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _place_after(before: str) -> Place:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Loader(yaml.SafeLoader):
    """Composes nodes: YAML 1.2 scalars, and no anchors, tags or deep nesting."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  declared so by PyYAML
    _depth = 0
    _values = 0

    def root(self) -> yaml.Node | None:
        try:
            return self.get_single_node()
        except (ValueError, OverflowError) as error:  # PyYAML's chr() of an escape, int() of a %YAML version
            problem = "found a number out of range in an escape or directive"
            raise RefusedError(problem, _place(self.get_mark())) from error

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = self._problem_with(event)
        if problem:
            raise RefusedError(problem, _place(event.start_mark))
        self._values += 1
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _problem_with(self, event: Any) -> str | None:
        if isinstance(event, yaml.AliasEvent):
            return f"alias *{one_line(str(event.anchor))} is not allowed; write the value out"
        if event.anchor is not None:
            return f"anchor &{one_line(event.anchor)} is not allowed; write the value out where it is used"
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            return f"tag {one_line(tag)} is not allowed; write plain values"
        if isinstance(event, yaml.CollectionStartEvent) and self._depth == MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels; an experiment needs fewer"
        if self._values == MAX_VALUES:
            return f"more than {MAX_VALUES:,} keys and values; an experiment needs fewer"
        return None


for _tag, _pattern, _first in (
    ("constant", r"null|Null|NULL|~|true|True|TRUE|false|False|FALSE|", ["n", "N", "~", "t", "T", "f", "F", ""]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+."]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def _value(node: yaml.Node, path: KeyPath, places: dict[KeyPath, Place]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, places)
    if not isinstance(node, yaml.SequenceNode):
        return _scalar(node)
    values = []
    for index, item in enumerate(node.value):
        places[*path, index] = _place(item.start_mark)
        values.append(_value(item, (*path, index), places))
    return values


def _mapping(node: yaml.MappingNode, path: KeyPath, places: dict[KeyPath, Place]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, place = _value(key_node, path, {}), _place(key_node.start_mark)
        if not isinstance(key, str):
            raise RefusedError(f"found the key {shown(key)}; keys must be text", place)
        if key in values:
            first = places[*path, key][0]
            raise RefusedError(f"duplicate key {shown(key)}, first on line {first}; keep one of them", place)
        places[*path, key] = place
        values[key] = _value(value_node, (*path, key), places)
    return values


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    text: str = node.value
    if node.tag == "constant":
        return _CONSTANTS[text.lower()]
    if node.tag == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if node.tag == "int":
        return _integer(text, _place(node.start_mark))
    unusable = _UNUSABLE.search(text)
    if unusable:
        problem = f"found text with the character #x{ord(unusable[0]):04x}; required: text without it"
        raise RefusedError(problem, _place(node.start_mark))
    return text


def _integer(text: str, place: Place) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits.startswith("0"):
        without = one_line(text.replace(digits, digits.lstrip("0") or "0"))
        raise RefusedError(f"found {one_line(text)}; drop the leading zero ({without}), or quote it", place)
    if len(digits) > _MAX_DIGITS:
        raise RefusedError(f"found an integer of {len(digits)} digits; at most {_MAX_DIGITS} are read", place)
    return int(text)
