from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import networkx as nx
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection

from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.drawing import FRAMES, figure_of
from decentral.topology.inline_svg import INK, RC, inline_svg
from decentral.topology.mixing import mixing_matrix
from decentral.topology.schedule import DrawnSchedule, cyclic
from decentral.topology.topology import Topology

COMPLETE = nx.complete_graph(6)


def load(name, nodes, **options):
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, Path())


def one_peer(turns):
    """Node i sends to i + 1, then to i + 2, ...: directed, with the weight 1/2."""
    graphs = [nx.DiGraph([(i, (i + hop) % 6) for i in range(6)]) for hop in range(1, turns + 1)]
    return Topology("one-peer", COMPLETE, cyclic(tuple(mixing_matrix(graph, "uniform") for graph in graphs)))


def drawn_anew():
    def draw(turn):
        graph = nx.empty_graph(6)
        graph.add_edge(turn % 5, turn % 5 + 1)
        return mixing_matrix(graph, "metropolis")

    return Topology("drawn", COMPLETE, DrawnSchedule(draw, "symmetric"))


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title().startswith("turn")]


def heading(figure):
    return [text.get_text() for text in figure.texts]


def lines(axes):
    """The last lines are the turn's own; those before it are faint."""
    return [found for found in axes.collections if isinstance(found, LineCollection)][-1]


def heads(axes):
    (found,) = (found for found in axes.collections if isinstance(found, PolyCollection))
    return [np.asarray(path.vertices[:3]) for path in found.get_paths()]


def test_a_drawn_schedule_says_what_its_matrices_are():
    """A dataclass field once left the abstract property `kind` open, so that no drawn schedule could be made."""
    assert drawn_anew().schedule.kind == "symmetric"


def test_lines_are_as_wide_as_their_weights():
    axes = figure_of(load("florentine", 15)).axes[0]
    W = load("florentine", 15).schedule.matrix(0).dense()
    weights = sorted(W[i, j] for i, j in load("florentine", 15).edges)
    widths = sorted(lines(axes).get_linewidths())
    assert len(widths) == 20
    assert np.corrcoef(weights, widths)[0, 1] == pytest.approx(1)
    assert widths[-1] > 1.5 * widths[0]
    assert not heads(axes)
    assert [text.get_text() for text in axes.texts] == [str(node) for node in range(15)]


def test_arrows_point_from_the_sender_to_the_receiver():
    axes = figure_of(one_peer(1)).axes[0]
    curves, points = lines(axes).get_segments(), heads(axes)
    assert len(points) == len(curves) == 6
    nodes = np.array([text.get_position() for text in axes.texts])
    for curve, (tip, *back) in zip(curves, points, strict=True):
        sender, receiver = (int(np.linalg.norm(nodes - end, axis=1).argmin()) for end in (curve[0], curve[-1]))
        assert receiver == (sender + 1) % 6
        assert all(np.linalg.norm(tip - nodes[receiver]) < np.linalg.norm(end - nodes[receiver]) for end in back)


def test_two_ways_of_different_weight_stay_apart():
    graph = nx.DiGraph([(0, 1), (1, 0), (1, 2), (2, 0)])
    topology = Topology.static("a", graph, "column-stochastic")
    curves = lines(figure_of(topology).axes[0]).get_segments()
    there, back = (next(c for c in curves if np.allclose(c[[0, -1]], np.array(e))) for e in _both_ends(curves))
    assert np.linalg.norm(there.mean(axis=0) - back.mean(axis=0)) > 0.05


def _both_ends(curves):
    ends = [tuple(map(tuple, np.round(curve[[0, -1]], 9))) for curve in curves]
    (pair,) = {pair for pair in ends if pair[::-1] in ends and pair < pair[::-1]}
    return pair, pair[::-1]


@pytest.mark.parametrize("matrix", [False, True])
def test_a_schedule_is_a_strip_of_its_turns(matrix):
    figure = figure_of(one_peer(3), matrix)
    assert titles(figure) == ["turn 0", "turn 1", "turn 2"]
    assert heading(figure) == ["one-peer", "6 nodes, 15 links, 3 turns over and over"]


def test_of_a_long_or_drawn_schedule_the_first_turns_are_shown():
    assert titles(figure_of(drawn_anew())) == [f"turn {turn}" for turn in range(FRAMES)]
    assert heading(figure_of(drawn_anew()))[1] == ("6 nodes, 15 links, drawn anew in every turn; the first 8 are shown")
    assert titles(figure_of(one_peer(5), frames=2)) == ["turn 0", "turn 1"]
    assert "5 turns over and over; the first 2 are shown" in heading(figure_of(one_peer(5), frames=2))[1]


def test_the_matrix_shows_what_each_node_applies_to_what_it_receives():
    topology = one_peer(2)
    images = [axes.images[0].get_array() for axes in figure_of(topology, matrix=True).axes if axes.images]
    for turn, image in enumerate(images):
        np.testing.assert_allclose(np.nan_to_num(image.filled(0)), topology.schedule.matrix(turn).dense())
    first = figure_of(topology, matrix=True).axes[0]
    assert (first.get_ylabel(), first.get_xlabel()) == ("receiving node", "sending node")
    assert images[0][1, 0] == 0.5  # node 1 receives from node 0
    assert first.get_ylim()[0] > first.get_ylim()[1]


def test_a_large_graph_is_drawn_as_its_matrix():
    figure = figure_of(load("ring", 3000))
    assert "the graph is too large to draw" in heading(figure)[1]
    image = np.nan_to_num(figure.axes[0].images[0].get_array().filled(0))
    assert image.shape == (375, 375)  # 8 x 8 entries to a cell
    near = np.abs(np.subtract.outer(np.arange(375), np.arange(375))) % 374 <= 1
    np.testing.assert_array_equal(image > 0, near)
    assert "too large" not in heading(figure_of(load("ring", 100)))[1]


@pytest.mark.parametrize("name", gallery.names())
@pytest.mark.parametrize("matrix", [False, True])
def test_all_words_lie_within_the_picture(name, matrix):
    nodes = {"davis": 32, "florentine": 15, "karate": 34, "les_miserables": 77}.get(name, 16)
    with matplotlib.rc_context(RC):
        figure = figure_of(load(name, nodes), matrix)
        words = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())  # in inches
    width, height = figure.get_size_inches()
    assert -1e-6 <= words.x0 < words.x1 <= width + 1e-6
    assert -1e-6 <= words.y0 < words.y1 <= height + 1e-6


def test_an_inline_picture_is_the_same_each_time_and_takes_the_pages_ink():
    def drawing(matrix):
        with matplotlib.rc_context(RC):
            return inline_svg(figure_of(one_peer(2), matrix), "a", "Two <turns>")

    assert drawing(False) == drawing(False)
    root = ElementTree.fromstring(drawing(False))
    assert (root.get("role"), root.get("aria-label")) == ("img", "Two <turns>")
    assert INK not in drawing(False)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(ids)) == len(ids)
    links = [element.get("href") for element in ElementTree.fromstring(drawing(True)).iter() if element.get("href")]
    assert any(link.startswith("data:image/png;base64,") for link in links)
    assert all(link.startswith(("data:", "#a-")) for link in links)


def test_one_node_alone():
    assert [text.get_text() for text in figure_of(load("ring", 1)).axes[0].texts] == ["0"]
    assert figure_of(load("ring", 1), matrix=True).axes[0].images[0].get_array().tolist() == [[1.0]]
