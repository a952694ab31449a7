"""A picture of a topology for a terminal: braille dots, 2 x 4 to a character, or plain ASCII."""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from decentral.topology.layout import layout
from decentral.topology.topology import Topology

DRAWN_NODES = 64
"""Above this many nodes, the picture is that of the adjacency matrix."""

Dots = NDArray[np.bool_]

_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_ASCII = np.array([" ", "'", ".", ":"])


def draw(topology: Topology, width: int = 72, height: int = 36, ascii: bool = False) -> str:
    """The graph as lines of text: numbered nodes and the edges between them, or its adjacency matrix.

    Args:
        topology: what to draw.
        width: characters per line, at most.
        height: lines, at most.
        ascii: draw with plain ASCII in place of braille dots.

    Raises:
        ValueError: less than 16 characters or 8 lines.
    """
    if width < 16 or height < 8:
        raise ValueError(f"width={width}, height={height}; a picture needs 16 characters by 8 lines or more")
    picture = _graph if topology.nodes <= DRAWN_NODES else _adjacency
    return "\n".join(line.rstrip() for line in picture(topology, width, height, ascii))


def _graph(topology: Topology, width: int, height: int, ascii: bool) -> list[str]:
    drawn = layout(topology.graph)
    dots = np.zeros((4 * height, 2 * width), dtype=bool)
    margin = np.array([4.0, 2.0])  # dots that a label needs around its middle
    room = (np.array([2 * width, 4 * height]) - 1) / 2
    for i, j in topology.edges:
        x, y = np.rint(room + drawn.curve(i, j, 4 * (width + height)) * (room - margin)).astype(int).T
        dots[y, x] = True
    lines = _characters(dots, ascii)
    for node, (x, y) in enumerate(np.rint(room + drawn.points * (room - margin)).astype(int).tolist()):
        label = str(node)
        begin = (x - len(label) + 1) // 2
        lines[y // 4][begin : begin + len(label)] = label
    return ["".join(line) for line in lines]


def _adjacency(topology: Topology, width: int, height: int, ascii: bool) -> list[str]:
    n, digits = topology.nodes, len(str(topology.nodes - 1))
    block = ceil(n / min(2 * (width - digits - 3), 4 * (height - 3)))
    i, j = np.array(topology.edges).T // block
    side = ceil(n / block)
    dots = np.zeros((4 * ceil(side / 4), 2 * ceil(side / 2)), dtype=bool)
    dots[i, j] = dots[j, i] = True
    body = ["".join(line) for line in _characters(dots, ascii)]
    left, top, right, bar, across = ("+", "+", "+", "|", "-") if ascii else ("└", "┌", "┐", "│", "─")
    corner = "+" if ascii else "┘"
    frame = across * len(body[0])
    margins = ["0", *[""] * (len(body) - 2), str(n - 1)]
    rows = [f"{margin:>{digits}} {bar}{line}{bar}" for margin, line in zip(margins, body, strict=True)]
    pad = " " * (digits + 1)
    dot = f"any of {block} x {block} nodes are" if block > 1 else "its row and its column are"
    caption = f"{pad} a dot where {dot} neighbors"
    return [f"{pad}{top}{frame}{right}", *rows, f"{pad}{left}{frame}{corner}", caption]


def _characters(dots: Dots, ascii: bool) -> list[list[str]]:
    """A character for each 4 x 2 block of dots."""
    blocks = dots.reshape(dots.shape[0] // 4, 4, dots.shape[1] // 2, 2).transpose(0, 2, 1, 3)
    if ascii:
        halves = blocks.reshape(*blocks.shape[:2], 2, 4).any(axis=3)
        return [list(line) for line in _ASCII[halves @ np.array([1, 2])].tolist()]
    codes = (blocks * _BRAILLE).sum(axis=(2, 3))
    return [[chr(0x2800 + code) if code else " " for code in line] for line in codes.tolist()]
