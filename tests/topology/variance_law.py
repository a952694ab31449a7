"""The variance law over the karate club with 4000 tokens: `python -m tests.topology.variance_law`, half a minute.

T Var f(x_T) after T = 6000 visits, f being the first standard normal vector of NumPy's generator of seed 0, beside the
closed form. Exits with 1 where one is off by more than 10 % (srrw), or 15 % (hdt, which is slower to its limit).
"""

import sys

import networkx as nx
import numpy as np

from decentral.topology.chains import chain
from decentral.topology.walk_analysis import covariance, survey
from decentral.topology.walks import Walk

VISITS, TOKENS = 6000, 4000


def main() -> int:
    graph, f, failed = nx.karate_club_graph(), np.random.default_rng(0).standard_normal(34), 0
    for kernel, alpha in (("srrw", 0), ("srrw", 1), ("srrw", 5), ("srrw", 10), ("srrw", 20), ("hdt", 1), ("hdt", 5)):
        chained = chain(graph, Walk(kernel, alpha))
        shares = survey(chained, VISITS, [VISITS], TOKENS, seed=1).visits / VISITS
        found, V = VISITS * float(np.var(shares @ f)), covariance(chained)
        assert V is not None
        theory = float(f @ V @ f)
        failed += abs(found / theory - 1) > (0.1 if kernel == "srrw" else 0.15)
        told = f"measured {found:.4f}, theory {theory:.4f}, off by {found / theory - 1:+.1%}"
        sys.stdout.write(f"{kernel} alpha {alpha:>2}: {told}\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
