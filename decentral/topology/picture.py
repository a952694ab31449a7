"""A picture of a topology for a terminal: braille dots, 2 x 4 to a character, or plain ASCII."""

from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import NDArray

from decentral.topology.layout import layout
from decentral.topology.topology import Topology

DRAWN_NODES = 64
"""Above this many nodes, the picture is that of the adjacency matrix."""

CROWDED_INK = 0.25
"""The share of dots above which edges can no longer be told apart, and the adjacency matrix reads better."""

LARGEST_CELL = 4
"""Dots along the side of one entry of the adjacency matrix: 4 dots are one line of text."""

Dots = NDArray[np.bool_]

_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_HALVES = np.array([" ", "'", ".", ":"])


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
    characters = _ascii if ascii else _braille
    lines = _graph(topology, width, height, characters) or _adjacency(topology, width, height, characters)
    return "\n".join(line.rstrip() for line in lines)


def _graph(topology: Topology, width: int, height: int, characters: Callable[[Dots], list[list[str]]]) -> list[str]:
    """The lines of the drawing; none where it would not be readable."""
    if topology.nodes > DRAWN_NODES:
        return []
    drawn = layout(topology.graph)
    dots = np.zeros((4 * height, 2 * width), dtype=bool)
    middle = (np.array([2 * width, 4 * height]) - 1) / 2
    reach = middle - np.array([4, 2])  # so that the outermost labels fit
    for i, j in topology.edges:
        x, y = np.rint(middle + reach * drawn.curve(i, j, 4 * (width + height))).astype(int).T
        dots[y, x] = True
    if dots.mean() > CROWDED_INK:
        return []
    lines = characters(dots)
    for node, (x, y) in enumerate(np.rint(middle + reach * drawn.points).astype(int).tolist()):
        label = str(node)
        begin = (x - len(label) + 1) // 2
        lines[y // 4][begin : begin + len(label)] = label
    return ["".join(line) for line in lines]


def _adjacency(topology: Topology, width: int, height: int, characters: Callable[[Dots], list[list[str]]]) -> list[str]:
    """Row i, column j is filled where i and j are neighbors; where there is no room, several nodes share a dot."""
    n, digits = topology.nodes, len(str(topology.nodes - 1))
    room = min(2 * (width - digits - 1), 4 * (height - 1))  # dots
    block, cell = ceil(n / room), min(LARGEST_CELL, max(1, room // n))
    entries = np.zeros((ceil(n / block), ceil(n / block)), dtype=bool)
    i, j = np.array(topology.edges).T // block
    entries[i, j] = entries[j, i] = True
    body = characters(_enlarged(entries, cell))
    margins = [""] * len(body)
    margins[0], margins[-1] = "0", str(n - 1)
    if cell == LARGEST_CELL:
        margins = [str(node) for node in range(n)]
    pair = "i and j are" if block == 1 else f"some of {block} x {block} nodes are"
    rows = [f"{margin:>{digits}} {''.join(line)}" for margin, line in zip(margins, body, strict=True)]
    return [*rows, f"{' ' * digits} a mark in row i, column j: {pair} neighbors"]


def _enlarged(entries: Dots, cell: int) -> Dots:
    """Each entry as a square of `cell` dots, with a gap where there is room for one; padded to whole characters."""
    filled = cell - 1 if cell > 2 else cell
    square = np.zeros((cell, cell), dtype=bool)
    square[:filled, :filled] = True
    dots = np.kron(entries, square)
    return np.pad(dots, [(0, -len(dots) % 4), (0, -len(dots) % 2)])


def _blocks(dots: Dots) -> Dots:
    """`(lines, characters, 4, 2)`."""
    return dots.reshape(dots.shape[0] // 4, 4, dots.shape[1] // 2, 2).transpose(0, 2, 1, 3)


def _braille(dots: Dots) -> list[list[str]]:
    codes = (_blocks(dots) * _BRAILLE).sum(axis=(2, 3))
    return [[chr(0x2800 + code) if code else " " for code in line] for line in codes.tolist()]


def _ascii(dots: Dots) -> list[list[str]]:
    upper, lower = _blocks(dots)[:, :, :2].any(axis=(2, 3)), _blocks(dots)[:, :, 2:].any(axis=(2, 3))
    return [list(line) for line in _HALVES[upper + 2 * lower].tolist()]
