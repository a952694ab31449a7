import re
from html.parser import HTMLParser

import pytest

from decentral.topology import gallery
from decentral.topology.gallery_page import cards, page

NODES = 16


@pytest.fixture(scope="module")
def found():
    return cards(NODES)


class Reader(HTMLParser):
    """Tags with their attributes, and whether each that was opened was closed in its turn."""

    EMPTY = ("meta", "br", "path", "use", "rect", "image")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_there_is_a_card_for_every_family(found):
    assert tuple(card.name for card in found) == gallery.names()
    assert all(card.topology is not None and card.analysis is not None for card in found)
    assert {card.name: card.nodes for card in found if card.nodes != NODES} == {
        "davis": 32,
        "florentine": 15,
        "karate": 34,
        "les_miserables": 77,
    }
    davis = next(card for card in found if card.name == "davis")
    assert davis.reason == "this network has exactly 32"
    ring = next(card for card in found if card.name == "ring")
    assert (ring.reason, ring.options) == (None, {})
    assert next(card for card in found if card.name == "small_world").options == {
        "neighbors": "4",
        "rewire": "0.1",
        "seed": "0",
    }


def test_the_page_stands_alone(found):
    html = page(found, NODES)
    reader = Reader(html)
    assert not reader.open
    assert len(html) < 2_000_000
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe")
        target = attributes.get("src") or attributes.get("href") or attributes.get("xlink:href") or "#"
        assert target.startswith(("#", "data:image/png;base64,"))
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {attributes["href"][1:] for tag, attributes in reader.tags if tag == "a"}
    assert linked == set(gallery.names()) <= set(ids)


def test_every_picture_has_words(found):
    pictures = [attributes for tag, attributes in Reader(page(found, NODES)).tags if tag == "svg"]
    assert len(pictures) == len(found)
    assert all(attributes["role"] == "img" for attributes in pictures)
    assert "Picture of ring: 16 nodes, 16 links" in {attributes["aria-label"] for attributes in pictures}


def test_the_numbers_of_a_card(found):
    html = page([card for card in found if card.name == "ring"], NODES)
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd></div>", html))
    assert facts == {
        "Nodes": "16",
        "Links": "16",
        "Degree": "2",
        "Diameter": "8",
        "Spectral gap": "0.0507",
        "Rounds": "133",
    }


def test_a_family_that_comes_in_no_near_size_says_why(monkeypatch, tmp_path):
    head = '"""A family of the test, and a poor one."""\nimport networkx as nx\n\n\n'
    odd = "def build(nodes, *, why=None):\n    raise ValueError(f'nodes={nodes}; <never>')\n"
    (tmp_path / "odd.py").write_text(head + odd)
    (tmp_path / "turns.py").write_text(head + "def build(nodes, *, must, why=None):\n    return nx.path_graph(nodes)\n")
    monkeypatch.setattr(gallery, "shipped", lambda folder: tmp_path)
    odd, turns = cards(3)
    assert (odd.topology, odd.reason, odd.options) == (None, "<never>", {"why": "unset"})
    assert turns.topology is None
    assert turns.options == {"must": "required", "why": "unset"}
    html = page([odd, turns], 3)
    assert "Not shown: &lt;never&gt;." in html
    assert "<svg" not in html
