"""Imports point down, read from the syntax trees; what no module may do; and what the light commands do not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "decentral"

# From the ground up. A name stands for a module or for all modules of a folder; each module is in exactly one layer.
LAYERS = {
    "ground": (
        "decentral",
        "decentral.compiled",
        "decentral.errors",
        "decentral.seeding",
        "decentral.shipped",
        "decentral.strict_yaml",
        "decentral.timeline",
        "decentral.config",
        "decentral.document",
        "decentral.faults",
        "decentral.loading",
        "decentral.methods",
        "decentral.user_code",
    ),
    "topology": ("decentral.topology",),
    "waist": ("decentral.effects", "decentral.peer", "decentral.fused", "decentral.compression"),
    "middle": ("decentral.transport", "decentral.algorithms"),
    "training": ("decentral.training",),
    "wrapping": ("decentral.wrapping",),
    "measure": ("decentral.measure",),
    "cli": ("decentral.cli", "decentral.__main__"),
}
ORDER = list(LAYERS)
FORBIDDEN_ACROSS = ("decentral.transport", "decentral.algorithms")  # one layer, and neither knows the other
MAY_IMPORT_DISTRIBUTED = (
    "decentral.transport",
    "decentral.training.ddp",
    "decentral.measure.bench",
    "decentral.measure.rivals",
)
MAY_EXECUTE_USER_FILES = ("decentral.topology.gallery",)
UNNAMED_CONCEPTS = {"util", "utils", "helper", "helpers", "common", "misc", "base", "core"}


def inside(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    def imports(self) -> Iterator[tuple[str, int]]:
        """What it imports anywhere, under TYPE_CHECKING and inside functions too, with the line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path.name}:{node.lineno}: a relative import"
                assert node.module is not None
                yield node.module, node.lineno
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def imports_of_ours(self) -> Iterator[tuple[str, int]]:
        """Modules of the package that it imports: `from decentral.training import data` imports training.data."""
        for name, line in self.imports():
            if inside(name, "decentral") and name in MODULES and name != self.name:
                yield name, line


def name_of(path: Path) -> str:
    parts = ("decentral", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): Module(name_of(path), path, ast.parse(path.read_bytes()))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_shipped" not in path.parts
}


def layers_of(module: str) -> list[str]:
    """`decentral` itself stands for its `__init__` alone, not for all that lies below."""
    return [
        layer
        for layer, names in LAYERS.items()
        if any(module == name or (name != "decentral" and inside(module, name)) for name in names)
    ]


def test_there_are_modules_to_read() -> None:
    assert len(MODULES) > 50
    assert {"decentral", "decentral.peer", "decentral.transport.rank", "decentral.cli.main"} <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_each_module_is_in_one_layer(module: str) -> None:
    assert len(layers_of(module)) == 1, f"{module} is in the layers {layers_of(module)}; put it in one of {ORDER}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = ORDER.index(layers_of(module)[0])
    for imported, line in MODULES[module].imports_of_ours():
        (layer,) = layers_of(imported)
        assert ORDER.index(layer) <= own, f"{module}:{line} imports {imported}, of the higher layer {layer!r}"


@pytest.mark.parametrize("module", MODULES)
def test_algorithms_and_transport_do_not_know_each_other(module: str) -> None:
    for here, there in (FORBIDDEN_ACROSS, FORBIDDEN_ACROSS[::-1]):
        if inside(module, here):
            found = [imported for imported, _ in MODULES[module].imports() if inside(imported, there)]
            assert not found, f"{module} imports {found}"


def test_no_module_imports_itself_round_about() -> None:
    """A cycle works or fails by who is imported first; TopologicalSorter names the cycle."""
    graph = {name: {imported for imported, _ in module.imports_of_ours()} for name, module in MODULES.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if layers_of(name)[0] in ("ground", "topology")])
def test_the_lowest_layers_do_without_torch(module: str) -> None:
    found = [f"{module}:{line}" for imported, line in MODULES[module].imports() if inside(imported, "torch")]
    assert not found


@pytest.mark.parametrize("module", MODULES)
def test_torch_distributed_is_imported_where_ranks_are_made(module: str) -> None:
    if any(inside(module, allowed) for allowed in MAY_IMPORT_DISTRIBUTED):
        return
    found = [line for imported, line in MODULES[module].imports() if inside(imported, "torch.distributed")]
    assert not found, f"{module}:{found}"


FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.save", "os.system"}
OBJECT_COLLECTIVES = (
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "scatter_object_list",
    "send_object_list",
    "recv_object_list",
)


def offenses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Ways for foreign bytes to become running code: pickle in all its names, and Python's own."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, a.name) for a in names if a.name.split(".")[0] in FORBIDDEN_MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                full = [f"{module}.{alias.name}" for alias in names]
                if module.split(".")[0] in FORBIDDEN_MODULES:
                    yield node.lineno, module
                yield from ((node.lineno, name) for name in full if name in FORBIDDEN_METHODS)
                yield from ((node.lineno, a.name) for a in names if a.name in OBJECT_COLLECTIVES)
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                yield node.lineno, name
            case ast.Attribute(attr=name) if name in OBJECT_COLLECTIVES or name == "exec_module":
                yield node.lineno, name
            case ast.Attribute() if ast.unparse(node) in FORBIDDEN_METHODS:
                yield node.lineno, ast.unparse(node)
            case ast.keyword(arg="weights_only" | "allow_pickle", value=value):
                yield value.lineno, f"{node.arg}={ast.unparse(value)}"


@pytest.mark.parametrize("module", MODULES)
def test_no_foreign_byte_becomes_code(module: str) -> None:
    """A peer that may send pickle runs code here: torch's object collectives and torch.load are pickle underneath.
    The gallery executes the user's own topology file, which is code by promise; nothing else does.
    """
    found = [f"{module}:{line}: {what}" for line, what in offenses(MODULES[module].tree)]
    if module in MAY_EXECUTE_USER_FILES:
        assert [one.rpartition(": ")[2] for one in found] == ["exec_module"]
    else:
        assert not found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import _pickle as p",
        "from pickle import loads",
        "from torch import load",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "dist.all_gather_object(a, b)",
        "from torch.distributed import broadcast_object_list",
        "torch.distributed.send_object_list([x])",
        "spec.loader.exec_module(module)",
        "def f():\n    import dill.source",
    ],
)
def test_the_reader_of_syntax_trees_sees(text: str) -> None:
    assert list(offenses(ast.parse(text)))


def test_every_file_names_a_concept() -> None:
    assert not [name for name in MODULES if name.rpartition(".")[2].strip("_") in UNNAMED_CONCEPTS]


def loaded_by(program: str) -> set[str]:
    """The modules that a fresh interpreter holds at the end of a program."""
    ending = "\nimport sys; print('\\n' + ' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program + ending], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def run_as(*arguments: str) -> str:
    """A program that does what `python -m decentral ARGUMENTS` does, and goes on afterwards."""
    return (
        "import runpy, sys\n"
        f"sys.argv = {['decentral', *arguments]!r}\n"
        "try:\n    runpy.run_module('decentral', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("topology", "list"),
        ("topology", "--help"),
        ("data", "--help"),
        ("train", "--help"),
        ("speedup", "--help"),
        ("launch", "--help"),
        ("trace", "--help"),
        ("doctor", "--help"),
        ("bench", "compress", "--help"),
        ("launch", str(PACKAGE.parent / "launch" / "quickstart.yaml"), "--with", "slurm", "--dry-run"),
    ],
    ids=" ".join,
)
def test_light_commands_load_no_torch(arguments: tuple[str, ...]) -> None:
    """torch takes seconds to import, and help is asked for often: what does not compute must not load it."""
    loaded = loaded_by(run_as(*arguments))
    assert "decentral.cli.main" in loaded
    assert "torch" not in loaded


def test_the_lowest_layers_load_no_torch() -> None:
    """The syntax trees see our own imports; this sees what those import in turn."""
    names = [name for name in MODULES if layers_of(name)[0] in ("ground", "topology")]
    loaded = loaded_by("".join(f"import {name}\n" for name in names))
    assert set(names) <= loaded
    assert not [name for name in loaded if inside(name, "torch")]
