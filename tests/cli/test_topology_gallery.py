"""Pictures of topologies as files, and the page of the gallery."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Command

PNG = b"\x89PNG\r\n\x1a\n"


def test_show_writes_a_picture(decentral: Command) -> None:
    result = decentral("topology", "show", "ring", "--nodes", "8", "-o", "ring.svg")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("ring.svg\n")
    assert "spectral gap" in result.out
    root = ElementTree.parse("ring.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    first = Path("ring.svg").read_bytes()
    decentral("topology", "show", "ring", "--nodes", "8", "-o", "ring.svg")
    assert Path("ring.svg").read_bytes() == first


def test_show_says_what_it_wrote(decentral: Command) -> None:
    shown = decentral("topology", "show", "torus", "--nodes", "16", "-o", "a.PNG", "--json").json
    assert (shown["picture"], shown["view"], shown["nodes"]) == ("a.PNG", "graph", 16)
    assert Path("a.PNG").read_bytes().startswith(PNG)
    shown = decentral("topology", "show", "torus", "--nodes", "16", "--matrix", "-o", "b.png", "--json").json
    assert (shown["picture"], shown["view"]) == ("b.png", "matrix")
    assert Path("a.PNG").read_bytes() != Path("b.png").read_bytes()
    assert decentral("topology", "show", "ring", "--nodes", "500", "-o", "c.png", "--json").json["view"] == "matrix"
    assert "picture" not in decentral("topology", "show", "ring", "--json").json


def test_show_draws_a_schedule(decentral: Command) -> None:
    arguments = ("--nodes", "8", "-s", "schedule=matchings")
    assert decentral("topology", "show", "tree", *arguments, "-o", "tree.svg").code == 0
    whole = decentral("topology", "show", "tree", "--nodes", "8", "-o", "whole.svg")
    assert whole.code == 0
    turns, one = (ElementTree.parse(name).getroot().get("viewBox") for name in ("tree.svg", "whole.svg"))
    assert turns is not None
    assert one is not None
    assert float(turns.split()[2]) > float(one.split()[2])


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("ring.pdf", "ring.pdf has the suffix '.pdf'; required: .svg or .png"),
        ("ring", "ring has the suffix ''; required: .svg or .png"),
        (".", "is a folder; name a file in it"),
        ("folder.svg", "folder.svg is a folder; name a file in it"),
        ("gone/ring.svg", "no folder gone for ring.svg; make it first"),
        ("file/ring.svg", "no folder file for ring.svg"),
        ("/proc/ring.svg", "/proc/ring.svg: cannot be written"),
    ],
)
def test_a_picture_that_cannot_be_written(decentral: Command, output: str, line: str) -> None:
    Path("folder.svg").mkdir()
    Path("file").touch()
    result = decentral("topology", "show", "ring", "-o", output)
    assert result.code == 2
    assert line in result.line
    assert {path.name for path in Path().iterdir()} == {"folder.svg", "file"}


def test_a_matrix_wants_a_file(decentral: Command) -> None:
    result = decentral("topology", "show", "ring", "--matrix")
    assert (result.code, result.line) == (2, "--matrix draws into a file; name it: -o matrix.svg")


def test_the_gallery_is_a_page(decentral: Command) -> None:
    result = decentral("topology", "gallery", "--nodes", "8", "--json")
    assert (result.code, result.err) == (0, "")
    assert (result.json["page"], result.json["nodes"]) == ("gallery.html", 8)
    ring = next(graph for graph in result.json["graphs"] if graph["name"] == "ring")
    assert (ring["nodes"], ring["reason"], ring["analysis"]["edges"]) == (8, None, 8)
    html = Path("gallery.html").read_text()
    assert html.count("<article") == len(result.json["graphs"]) == html.count("<svg")


@pytest.mark.parametrize(
    ("output", "line"), [("gallery.svg", "required: .html"), (".", "is a folder"), ("gone/a.html", "no folder gone")]
)
def test_a_page_that_cannot_be_written(decentral: Command, output: str, line: str) -> None:
    result = decentral("topology", "gallery", "-o", output)
    assert result.code == 2
    assert line in result.line


@pytest.mark.parametrize("arguments", ["--help", "topology list", "topology show ring", "topology show --help"])
def test_what_draws_nothing_loads_no_matplotlib(arguments: str) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['decentral', *{arguments.split()!r}]\n"
        "try:\n    runpy.run_module('decentral', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'decentral.cli.topology_gallery' in sys.modules\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
