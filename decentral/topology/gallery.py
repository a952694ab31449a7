"""The gallery: one file is one graph. The built-in ones lie in `topologies/`; a user's own is named by its path.

A Python file defines `build(nodes, *, ...)`, whose keyword parameters are the options of the experiment's topology
section. It returns a networkx graph, or a list of them, which take turns. With `schedule(turn, nodes, *, ...)`, of the
same options, each turn has the edges that this returns: a graph, or (i, j) or (i, j, weight); `build` then returns the
graph of all edges that may occur. `WEIGHTS = "given"` says that the edges carry their weights. It is the user's code
and runs as such; data files are only read.

An option that is annotated as a Path is relative to the experiment. Where each node of a graph has an attribute `pos`,
(x, y), pictures place it there.
"""

import ast
import inspect
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx

from decentral import config
from decentral.config import KeyPath
from decentral.errors import ConfigError, nearest
from decentral.shipped import shipped
from decentral.topology.assembly import Family, topology_of
from decentral.topology.graph_files import READERS, read
from decentral.topology.topology import Topology
from decentral.user_code import blame, called, checked_options, function_of

SUFFIXES = (".py", *READERS)


def load(section: config.Topology, nodes: int, folder: Path) -> Topology:
    """The topology of an experiment's section.

    Args:
        section: its name is one of the gallery, or a path to a file.
        nodes: how many nodes the graph must have.
        folder: where relative paths start.

    Raises:
        ConfigError: no such file, a fault in it, bad options, or a graph or weights that cannot be used.
    """
    try:
        return topology_of(_family(section, nodes, folder), section, nodes)
    except ConfigError as error:
        if error.at is None:
            error.at = section.path
        raise


def find(name: str, folder: Path) -> Path:
    """The file that a topology's name stands for.

    A plain name is one of the gallery; a name with a path separator or a known suffix is a file, sought in `folder`
    and then in the current directory.

    Raises:
        ConfigError: there is none.
    """
    if not _is_path(name):
        known = _shipped()
        if name not in known:
            raise ConfigError(f"the gallery has no topology {name!r}{nearest(name, known)}")
        return known[name]
    if Path(name).suffix not in SUFFIXES:
        raise ConfigError(f"{name} has the suffix {Path(name).suffix!r}; a topology file is one of {_one_of()}")
    for path in (folder / name, Path.cwd() / name):
        if path.is_file():
            return path
    raise ConfigError(f"no file {name} in {folder.resolve()} or {Path.cwd()}; a plain name means the gallery's own")


def names() -> tuple[str, ...]:
    """The names of the gallery, ascending."""
    return tuple(_shipped())


def summary(path: Path) -> str:
    """The first line of the file's docstring, without running it; empty for a data file."""
    if path.suffix != ".py":
        return ""
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes(), str(path)))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {blame(error)}") from error
    return (docstring or "").partition("\n")[0]


def options(path: Path) -> dict[str, inspect.Parameter]:
    """The options of a Python file, which runs for this; a data file has none."""
    if path.suffix != ".py":
        return {}
    parameters = inspect.signature(function_of(_executed(path, ()), "build", ())).parameters
    return dict(list(parameters.items())[1:])


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(shipped("topologies").iterdir()) if path.suffix in SUFFIXES}


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or Path(name).suffix in SUFFIXES


def _one_of() -> str:
    return ", ".join(SUFFIXES)


def _family(section: config.Topology, nodes: int, folder: Path) -> Family:
    path = find(section.name, folder)
    source = section.name if _is_path(section.name) else f"topologies/{path.name}"
    if path.suffix != ".py":
        return Family([_read(path, section.options, section.path)], source)
    module = _executed(path, section.path)
    return _of_module(module, source, section.options, nodes, section.path, folder)


def _of_module(
    module: ModuleType, source: str, options: Mapping[str, Any], nodes: int, at: KeyPath, folder: Path
) -> Family:
    """`build(nodes, *, ...)` gives the graph, or those of a cycle; `schedule(turn, nodes, *, ...)` a turn's edges."""
    build, weights = function_of(module, "build", at), getattr(module, "WEIGHTS", "metropolis")
    placed = _placed(checked_options(build, options, at, positional=1), folder)
    built = called(build, nodes, options=placed, at=at)
    graphs = built if isinstance(built, list | tuple) and built else [built]
    if not hasattr(module, "schedule"):
        return Family(graphs, source, weights=weights)
    own = function_of(module, "schedule", at)
    checked = _placed(checked_options(own, options, at, positional=2), folder)

    def turn(number: int) -> object:
        return called(own, number, nodes, options=checked, at=at)

    return Family(graphs, source, turn, weights)


def _placed(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options that are paths, as those of the experiment: beside it, else in the current directory."""
    return {
        key: folder / value if isinstance(value, Path) and (folder / value).exists() else value
        for key, value in options.items()
    }


def _executed(path: Path, at: KeyPath) -> ModuleType:
    """The file's module, which never enters sys.modules: two files of one name do not meet."""
    spec = spec_from_file_location(f"{path.resolve().parent.name}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path} failed: {blame(error)}", at) from error
    return module


def _read(path: Path, options: Mapping[str, Any], at: KeyPath) -> nx.Graph:
    for key in options:
        raise ConfigError(f"unknown key; {path.name} is a data file and takes no options", (*at, key))
    return read(path)
