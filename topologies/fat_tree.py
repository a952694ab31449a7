"""Fat tree: the hosts of a data center of k-port switches, k^3 / 4 of them; the switches themselves are no nodes.

k pods of k/2 edge switches of k/2 hosts each (Al-Fares, Loukissas and Vahdat 2008). A host talks to the hosts of its
switch, to those of its place under the other switches of its pod, and to those of its place in the other pods: degree
2 k - 3, diameter 3, and weights 1 / (2 k - 2). The gap is k / (4 (k - 1)) for k > 2, above 1/4 at any size.
"""

from itertools import combinations, product

import networkx as nx


def build(nodes: int) -> nx.Graph:
    ports = next(k for k in range(2, nodes + 3, 2) if k**3 // 4 >= nodes)
    if ports**3 // 4 != nodes:
        sizes = " or ".join(str(k**3 // 4) for k in (ports - 2, ports) if k)
        raise ValueError(f"nodes={nodes}; a fat tree of k-port switches has k^3/4 hosts: {sizes}; or use racks")
    half = ports // 2
    number = {place: node for node, place in enumerate(product(range(ports), range(half), range(half)))}
    graph = nx.empty_graph(nodes)
    for axis, length in enumerate((ports, half, half)):
        for place in (place for place in number if place[axis] == 0):
            line = [number[(*place[:axis], step, *place[axis + 1 :])] for step in range(length)]
            graph.add_edges_from(combinations(line, 2))
    return graph
