"""Base-(k+1) graph: a cycle of graphs of degree at most k whose product is the exact mean, for any number of nodes.

At most 2 log n / log(k + 1) + 2 turns, with given weights (Takezawa et al. 2023, arXiv:2305.11420, algorithms 1 to 3):

- Hyper-Hypercube, where n = n_1 n_2 ... with factors up to k + 1: in turn l those average who differ in digit l alone.
- Simple Base: n = a_1 (k + 1)^p_1 + a_2 (k + 1)^p_2 + ..., p_1 > p_2 > ...; part l has a_l pieces of (k + 1)^p_l nodes.
  First each part averages. Then part 1, 2, ... in turn gives to whoever is in later parts, so that the exact mean is
  that of all later parts and that of each of its own pieces, over which it is spread last.
- Base: n = p q, where p takes all factors up to k + 1: p blocks of q average by Simple Base, then by Hyper-Hypercube
  those who have the same place in all blocks; or Simple Base of all n, where that is as short.
"""

from functools import cache
from itertools import combinations

import networkx as nx

WEIGHTS = "given"

Turn = dict[tuple[int, int], float]
"""The weights of a turn's edges."""


def build(nodes: int, *, k: int = 1) -> list[nx.Graph]:
    """`k` is the most neighbors that a node has in a turn."""
    if k < 1:
        raise ValueError(f"k={k}; a node needs 1 neighbor or more in a turn")
    turns = base(list(range(nodes)), k + 1) or [{}]
    graphs = [nx.empty_graph(nodes) for _ in turns]
    for graph, turn in zip(graphs, turns, strict=True):
        graph.add_weighted_edges_from((i, j, weight) for (i, j), weight in turn.items())
    return graphs


def base(nodes: list[int], most: int) -> list[Turn]:
    """Algorithm 3, where `most` is k + 1."""
    smooth, rest = 1, len(nodes)
    for prime in range(2, most + 1):
        while rest % prime == 0:
            smooth, rest = smooth * prime, rest // prime
    blocks = [nodes[first : first + rest] for first in range(0, len(nodes), rest)]
    inside = _together([simple_base(block, most) for block in blocks])
    across = _together([hyper_hypercube(list(same), most) for same in zip(*blocks, strict=True)])
    return min(simple_base(nodes, most), inside + across, key=len)


def hyper_hypercube(nodes: list[int], most: int) -> list[Turn]:
    """Algorithm 1: a turn for each factor of the number of nodes, which averages groups of that size."""
    turns, stride = [], 1
    for factor in _factors(len(nodes), most) or ():
        groups = (nodes[at : at + factor * stride : stride] for at in _starts(len(nodes), stride, factor))
        turns.append({pair: 1 / factor for group in groups for pair in combinations(group, 2)})
        stride *= factor
    return turns


def simple_base(nodes: list[int], most: int) -> list[Turn]:
    """Algorithm 2."""
    if _factors(len(nodes), most) is not None:
        return hyper_hypercube(nodes, most)
    parts = _parts(nodes, most)
    turns = _together([hyper_hypercube([node for piece in part for node in piece], most) for part in parts])
    opening = len(turns)
    for giver, part in enumerate(parts):
        spreading = _together([hyper_hypercube(piece, most) for piece in part])
        turns = _together([turns, [{}] * (opening + giver) + [_given(parts[giver:]), *spreading]])
    return turns


def _given(parts: list[list[list[int]]]) -> Turn:
    """The first part gives to all others: each of those takes from one node of each piece, no node giving twice."""
    pieces, others = parts[0], [node for part in parts[1:] for piece in part for node in piece]
    size = sum(map(len, pieces))
    weight = size / (len(pieces) * (size + len(others)))
    return {(piece[place], other): weight for place, other in enumerate(others) for piece in pieces}


def _parts(nodes: list[int], most: int) -> list[list[list[int]]]:
    """The nodes by the digits of their number to the base `most`, the highest first: for each, that many pieces."""
    parts, at, size = [], 0, 1
    while size * most <= len(nodes):
        size *= most
    while size:
        digit = (len(nodes) - at) // size
        if digit:
            parts.append([nodes[at + piece * size : at + (piece + 1) * size] for piece in range(digit)])
        at, size = at + digit * size, size // most
    return parts


def _together(sequences: list[list[Turn]]) -> list[Turn]:
    """Sequences of turns side by side, on different nodes; those of one length or less end early."""
    length = max(map(len, sequences))
    return [
        {pair: w for turns in sequences if at < len(turns) for pair, w in turns[at].items()} for at in range(length)
    ]


def _starts(nodes: int, stride: int, factor: int) -> list[int]:
    return [block + at for block in range(0, nodes, stride * factor) for at in range(stride)]


@cache
def _factors(number: int, most: int) -> tuple[int, ...] | None:
    """The fewest factors up to `most` that make the number, the largest first; None where there are none."""
    if number == 1:
        return ()
    rests = ((factor, _factors(number // factor, most)) for factor in range(most, 1, -1) if number % factor == 0)
    found = [(factor, *rest) for factor, rest in rests if rest is not None]
    return min(found, key=len, default=None)
