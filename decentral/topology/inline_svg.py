"""A matplotlib figure as an SVG element that stands inside a page, on a light one and on a dark one.

Its output is deterministic. What is drawn in `INK` becomes `currentColor`, the page's own.
"""

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

from matplotlib.figure import Figure

INK = "#010203"
ACCENT = "#3b82d6"
RC: Any = {"svg.fonttype": "none", "svg.hashsalt": "decentral", "font.size": 8.5, "text.parse_math": False}
"""The settings that a figure is made and rendered with."""

SVG = "http://www.w3.org/2000/svg"


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure's SVG element.

    Args:
        figure: made within `RC`.
        prefix: starts every id in it; unique in the page.
        label: what a reader hears who does not see the figure.
    """
    drawing = io.StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text; that matplotlib's own lacks a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(drawing.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        named = [(key.rpartition("}")[2], value) for key, value in element.items()]
        element.attrib = {name: _owned(name, value, prefix) for name, value in named}
    joins = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    root.attrib = {"xmlns": SVG, "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label, **joins}
    return ElementTree.tostring(root, encoding="unicode")


def _owned(key: str, value: str, prefix: str) -> str:
    """An attribute's value: ids become the figure's own, ink the page's, and text takes the reader's font."""
    if key == "id":
        return f"{prefix}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{prefix}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")
    return re.sub(r"'DejaVu Sans'[^;]*", "system-ui, sans-serif", value)
