"""What is wrong with an experiment's values, told in the words of the file: the place, what was found and required.

Pydantic reports a path with the tags of its unions in it, and the name of a rule. This walks the same path down the
tree of sections, which gives the path in the file, the known names, and the words for what a field wants.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from decentral.config import OWN, Experiment, KeyPath, Named, Section
from decentral.document import Document
from decentral.errors import ConfigError, nearest
from decentral.strict_yaml import shown

_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong at a path of the file."""

    path: KeyPath
    message: str
    unknown_key: bool = False


def refusal(document: Document, faults: Iterable[Fault]) -> ConfigError:
    """The error for the first fault: unknown keys before others, then by position in the file; the rest are counted."""
    first, *more = sorted(faults, key=lambda fault: (not fault.unknown_key, document.position(fault.path)))
    return document.located(first.path, f"{first.message} (+{len(more)} more)" if more else first.message)


def faults_in(error: ValidationError) -> list[Fault]:
    """The faults that pydantic found in an Experiment."""
    return [*dict.fromkeys(_fault(details) for details in error.errors(include_url=False))]


@dataclass(frozen=True, slots=True)
class _Slot:
    """What the tree of sections has at a path: a type, the constraints on it, and what it is for."""

    annotation: Any
    constraints: tuple[Any, ...] = ()
    purpose: str = ""

    @classmethod
    def of(cls, annotation: Any, constraints: Sequence[Any] = (), purpose: str | None = None) -> "_Slot":
        if get_origin(annotation) is Annotated:
            inner, *outer = get_args(annotation)
            unpacked = [part for item in outer for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
            return cls.of(inner, (*unpacked, *constraints), purpose)
        alternatives = [item for item in get_args(annotation) if item is not NoneType]
        if _is_union(annotation) and len(alternatives) == 1:
            return cls.of(alternatives[0], constraints, purpose)
        return cls(annotation, tuple(constraints), " ".join((purpose or "").split()).rstrip("."))

    @property
    def members(self) -> dict[str, Any]:
        """Of a union of sections, each by its tag."""
        tagged = [get_args(item) for item in get_args(self.annotation) if get_origin(item) is Annotated]
        are_tagged = _is_union(self.annotation) and all(isinstance(tag, Tag) for _, tag in tagged)
        return {tag.tag: kind for kind, tag in tagged} if are_tagged else {}

    @property
    def alternatives(self) -> list["_Slot"]:
        """Of a union of plain values, such as a name or a number."""
        kinds = get_args(self.annotation) if _is_union(self.annotation) and not self.members else ()
        return [_Slot.of(kind) for kind in kinds if kind is not NoneType]

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """Of a section."""
        is_section = isinstance(self.annotation, type) and issubclass(self.annotation, Section)
        return self.annotation.model_fields if is_section else {}

    def below(self, key: str | int) -> "_Slot":
        if self.members:
            return _Slot.of(self.members[str(key)])
        if self.alternatives:
            return self
        if isinstance(key, int):
            return _Slot.of(get_args(self.annotation)[0], purpose=self.purpose)
        field = self.fields[key]
        return _Slot.of(field.annotation, field.metadata, field.description)

    @property
    def names(self) -> list[str]:
        """What may be written here, where that is a closed list."""
        if get_origin(self.annotation) is Literal:
            return [str(value) for value in get_args(self.annotation)]
        return [name for name in self.members if name != OWN]

    @property
    def or_own(self) -> str:
        return f", or {OWN}" if OWN in self.members else ""

    @property
    def required(self) -> str:
        """`an integer, at least 1 - Number of nodes`."""
        words = ", ".join([self._kind, *filter(None, map(self._bound, self.constraints))])
        if get_origin(self.annotation) is list:
            words += f", each {_Slot.of(get_args(self.annotation)[0]).required}"
        return f"{words} - {self.purpose}" if self.purpose else words

    @property
    def _kind(self) -> str:
        if self.alternatives:
            return ", or ".join(slot.required for slot in self.alternatives)
        if self.names:
            return f"one of {', '.join(self.names)}{self.or_own}" if len(self.names) > 1 else self.names[0]
        if self.fields:
            return f"{'a name, or ' if Named in self.constraints else ''}a mapping with {', '.join(self.fields)}"
        return _KINDS.get(self.annotation, "a list")

    def _bound(self, constraint: Any) -> str:
        unit = " entries" if get_origin(self.annotation) is list else " characters"
        match constraint:
            case Ge(ge=limit):
                return f"at least {limit}"
            case Gt(gt=limit):
                return f"above {limit}"
            case Le(le=limit):
                return f"at most {limit}"
            case Lt(lt=limit):
                return f"below {limit}"
            case MultipleOf(multiple_of=factor):
                return f"a multiple of {factor}"
            case MinLen(min_length=1):
                return "not empty"
            case MinLen(min_length=length):
                return f"at least {length}{unit}"
            case MaxLen(max_length=length):
                return f"at most {length}{unit}"
        return ""


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _traced(location: KeyPath) -> tuple[KeyPath, _Slot]:
    """The path in the file and the slot at pydantic's location, which has the tags of unions in it."""
    path: KeyPath = ()
    slot = _Slot.of(Experiment)
    for key in location:
        path = path if slot.members or slot.alternatives else (*path, key)
        slot = slot.below(key)
    return path, slot


def _fault(details: ErrorDetails) -> Fault:
    found = details["input"]
    if details["type"] == "extra_forbidden":
        *above, key = details["loc"]
        path, slot = _traced(tuple(above))
        return Fault((*path, key), f"unknown key{nearest(str(key), slot.fields)}", unknown_key=True)
    path, slot = _traced(details["loc"])
    if details["type"] == "missing":
        return Fault(path, f"missing; required: {slot.required}")
    if slot.members and isinstance(found, dict):
        return Fault((*path, "name"), _name_problem(found, slot))
    if slot.names and isinstance(found, str):
        noun = "name" if path[-1:] == ("name",) else "value"
        return Fault(path, f"unknown {noun} {shown(found)}{nearest(found, slot.names)}")
    return Fault(path, f"found {shown(found)}; required: {slot.required}")


def _name_problem(section: dict[str, Any], slot: _Slot) -> str:
    if "name" not in section:
        return f"missing; required: {slot.required}"
    name = section["name"]
    if not isinstance(name, str):
        return f"found {shown(name)}; required: {slot.required}"
    hint = nearest(name, slot.names)
    return f"unknown name {shown(name)}{hint}{'' if hint.endswith('?') else slot.or_own}"
