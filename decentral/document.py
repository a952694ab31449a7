"""An experiment file as data with places: plain dicts, lists and scalars, and the line and column of every key.

`-s key=value` replaces one place of the tree, and is that place's address from then on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from decentral.config import KeyPath
from decentral.errors import ConfigError
from decentral.strict_yaml import MAX_BYTES, MAX_DEPTH, Place, RefusedError, decoded, one_line, parsed, shown

_FORM = "required: -s key=value, such as -s optimizer.lr=0.05 or -s compare.0.topology.name=ring"


def dotted(path: KeyPath) -> str:
    """`compare.0.topology`: a path of keys on one line."""
    return ".".join(one_line(str(key)) for key in path)


@dataclass(frozen=True, slots=True)
class Document:
    """A mapping read from a file, and where its parts stand.

    Attributes:
        source: the file, as the user named it.
        tree: dicts with string keys, lists and scalars.
        places: line and column, from 1, of a mapping's key or a list's entry; `()` is the whole.
        overridden: the `-s key=value` that set a place.
    """

    source: str
    tree: dict[str, Any]
    places: Mapping[KeyPath, Place]
    overridden: Mapping[KeyPath, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "Document":
        """The document in a YAML file.

        Raises:
            ConfigError: no such file, or anything but one mapping in the strict subset of YAML.
        """
        source = one_line(fspath(path), 4096)
        try:
            tree, places = parsed(decoded(_content(Path(path))))
            if not isinstance(tree, dict):
                found = "the file is empty" if tree is None else f"found {shown(tree)}"
                problem = f"{found}; required: a mapping of keys to values, such as 'nodes: 8'"
                raise RefusedError(problem, places.get((), (1, 1)))
        except RefusedError as error:
            line, column = error.place
            raise ConfigError(f"{source}:{line}:{column}: {error}") from error
        return cls(source, tree, places)

    def override(self, assignment: str) -> "Document":
        """A new document in which `key=value` holds.

        A shorthand on the way widens: with `topology: ring`, `topology.weights=uniform` leaves both.

        Args:
            assignment: a dotted path, in which a number is an entry of a list from 0; `=`; a YAML value on one line.

        Raises:
            ConfigError: another form, a key or an entry that is not there to be set, or a value that is not YAML.
        """
        option = f"-s {one_line(assignment.strip())}"
        key, equals, text = assignment.partition("=")
        keys = [part.strip() for part in key.split(".")]
        try:
            _check_form(keys, equals)
            value, _ = parsed(text)
            path, tree = _replaced(self.tree, keys, value)
        except RefusedError as error:
            raise ConfigError(f"{option}: {error}") from error
        places = {at: place for at, place in self.places.items() if at[: len(path)] != path}
        overridden = {at: earlier for at, earlier in self.overridden.items() if at[: len(path)] != path}
        return replace(self, tree=tree, places=places, overridden={**overridden, path: option})

    def locate(self, path: KeyPath) -> str:
        """`ring.yaml:4:3`, or the `-s` option, that holds `path` or its longest known prefix."""
        prefix = self._known(path)
        if prefix in self.overridden:
            return self.overridden[prefix]
        line, column = self.places[prefix]
        return f"{self.source}:{line}:{column}"

    def position(self, path: KeyPath) -> Place:
        """Orders paths by where they stand: first what `-s` set, then by line and column."""
        prefix = self._known(path)
        return (0, list(self.overridden).index(prefix)) if prefix in self.overridden else self.places[prefix]

    def _known(self, path: KeyPath) -> KeyPath:
        prefixes = (path[:length] for length in range(len(path), -1, -1))
        return next(prefix for prefix in prefixes if prefix in self.overridden or prefix in self.places)

    def located(self, path: KeyPath, message: str) -> ConfigError:
        """The error `ring.yaml:4:3: topology.degre: message`."""
        return ConfigError(": ".join(part for part in (self.locate(path), dotted(path), message) if part))

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Gives each ConfigError out of the block its place, where it names a path of keys.

        Raises:
            ConfigError: the block's, on one line with the place and the dotted path in front.
        """
        try:
            yield
        except ConfigError as error:
            if error.at is None:
                raise
            raise self.located(error.at, str(error)) from error


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise RefusedError("no such file; required: the path of an experiment file") from error
    except IsADirectoryError as error:
        raise RefusedError("a directory; required: the path of an experiment file") from error
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror}") from error


def _check_form(keys: list[str], equals: str) -> None:
    if not equals:
        raise RefusedError(f"no '='; {_FORM}")
    if not all(keys):
        raise RefusedError(f"an empty key; {_FORM}")
    if len(keys) > MAX_DEPTH:
        raise RefusedError(f"{len(keys)} keys deep; at most {MAX_DEPTH}")


def _replaced(node: Any, keys: list[str], value: Any, path: KeyPath = ()) -> tuple[KeyPath, Any]:
    """The path that `keys` stand for below `path`, and a copy of `node` with `value` there."""
    if not keys:
        return path, value
    key, *below = keys
    if isinstance(node, list):
        index = _index(node, key, path)
        at, child = _replaced(node[index], below, value, (*path, index))
        return at, [*node[:index], child, *node[index + 1 :]]
    mapping = _widened(node, key, path)
    at, child = _replaced(mapping.get(key), below, value, (*path, key))
    return at, {**mapping, key: child}


def _index(entries: list[Any], key: str, path: KeyPath) -> int:
    if key in map(str, range(len(entries))):
        return int(key)
    found = f"{dotted(path)} is a list of {len(entries)}, counted from 0, and has no entry {key!r}"
    raise RefusedError(f"{found}; {_FORM}")


def _widened(node: Any, key: str, path: KeyPath) -> dict[str, Any]:
    if isinstance(node, dict):
        return node
    if isinstance(node, str | None) and not key.isdecimal():
        return {} if node is None else {"name": node}
    found = "not set" if node is None else shown(node)
    raise RefusedError(f"{dotted(path)} is {found}, and has no {key!r}; {_FORM}")
