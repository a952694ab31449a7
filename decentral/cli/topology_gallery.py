"""`decentral topology show -o` and `decentral topology gallery`: pictures as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.topology.gallery_page import Card
    from decentral.topology.topology import Topology

PICTURES = (".svg", ".png")
DOTS_PER_INCH = 160

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write a picture: .svg or .png.", show_default=False),
]
Matrix = Annotated[bool, typer.Option("--matrix", help="With -o: draw the mixing matrix in place of the graph.")]


def checked(output: Path | None, suffixes: tuple[str, ...], matrix: bool = False) -> Path | None:
    """The file to write, before anything is computed for it.

    Raises:
        ConfigError: its suffix is none of `suffixes`, it is a folder or lies in none; or `matrix` without it.
    """
    if output is None:
        if matrix:
            raise ConfigError("--matrix draws into a file; name it: -o matrix.svg")
        return None
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file in it, such as {output / f'picture{suffixes[0]}'}")
    if output.suffix.lower() not in suffixes:
        raise ConfigError(f"{output} has the suffix {output.suffix!r}; required: {' or '.join(suffixes)}")
    if not output.parent.is_dir():
        raise ConfigError(f"no folder {output.parent} for {output.name}; make it first")
    return output


def picture(topology: "Topology", output: Path, matrix: bool) -> dict[str, Any]:
    """Write the picture of a topology; what was written, as a document.

    Raises:
        ConfigError: the file cannot be written.
    """
    import io

    import matplotlib

    from decentral.topology.drawing import drawable, figure_of
    from decentral.topology.inline_svg import RC

    kind, content = output.suffix.lower()[1:], io.BytesIO()
    look = RC | {"svg.fonttype": "path"}  # a file stands alone: it brings the shapes of its letters
    with matplotlib.rc_context(look):
        stamped = {"Date": None} if kind == "svg" else {"Software": None}
        figure_of(topology, matrix).savefig(
            content, format=kind, dpi=DOTS_PER_INCH, facecolor="white", metadata=stamped
        )
    write(output, content.getvalue())
    return {"picture": str(output), "view": "graph" if drawable(topology) and not matrix else "matrix"}


def gallery(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")] = Path("gallery.html"),
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=1000, metavar="N", help="The size of all graphs.")] = 16,
    json: AsJson = False,
) -> None:
    """Write a page with a picture of every graph of the gallery."""
    checked(output, (".html",))

    from decentral.topology.gallery_page import cards, page

    found = cards(nodes)
    write(output, page(found, nodes).encode())
    if json:
        print_json({"page": str(output), "nodes": nodes, "graphs": [_as_document(card) for card in found]})
    else:
        stdout().print(f"{output}: {len(found)} graphs", markup=False)


def write(output: Path, content: bytes) -> None:
    """The file, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    from decentral.measure.atomic import write_atomically

    try:
        write_atomically(output, content)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror}); choose another place") from error


def _as_document(card: "Card") -> dict[str, Any]:
    analysis = None if card.analysis is None else card.analysis.as_dict()
    return {
        "name": card.name,
        "summary": card.summary,
        "options": dict(card.options),
        "nodes": card.nodes,
        "reason": card.reason,
        "analysis": analysis,
    }
