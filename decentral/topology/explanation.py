"""All that `decentral topology explain` says of a topology, as one document."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from decentral.errors import ConfigError
from decentral.topology.admission import Verdict, admissions
from decentral.topology.analysis import Analysis, analyze
from decentral.topology.effective_neighbors import EffectiveNeighbors, Neighbors, effective_neighbors
from decentral.topology.quadratic_rates import DEFAULT_NOISE, Best, QuadraticRates, check_noise
from decentral.topology.topology import Topology
from decentral.topology.traffic import Traffic, traffic

GAMMAS = (0.5, 0.9, 0.95, 0.99, 0.999)
LEARNING_RATES = tuple(float(f"{rate:.3g}") for rate in np.logspace(-3, 0, 31))


@dataclass(frozen=True)
class Explanation:
    """A topology's numbers.

    `neighbors`, `curve` and `best` are empty or None where n_W is not defined; `method` then says why, else how n_W was
    found. In `curve` a rate of None stands where n_W is not known at the gamma that this learning rate needs.
    """

    analysis: Analysis
    traffic: Traffic
    verdicts: Sequence[Verdict]
    noise: float
    method: str
    neighbors: Sequence[tuple[float, Neighbors | None]] = ()
    curve: Sequence[tuple[float, float | None]] = ()
    best: Best | None = None
    rates: QuadraticRates | None = None

    def around_best(self, shares: Sequence[float]) -> list[tuple[float, float | None]]:
        """Learning rates at some shares of the best, each with its rate."""
        if self.best is None or self.rates is None:
            return []
        wanted = [share * self.best.learning_rate for share in shares]
        return [(learning_rate, self.rates.rate(learning_rate)) for learning_rate in wanted]

    def as_dict(self, model_bytes: float | None = None) -> dict[str, Any]:
        """For JSON; None stands for infinity and for what is not known."""
        best = self.best and {key: value if isfinite(value) else None for key, value in asdict(self.best).items()}
        sent = {
            "messages_per_node_and_round": self.traffic.messages_mean,
            "messages_busiest": self.traffic.messages_busiest,
        }
        if model_bytes is not None:
            sent["bytes_per_node_and_round"] = self.traffic.messages_mean * model_bytes
            sent["bytes_busiest"] = self.traffic.messages_busiest * model_bytes
        return {
            **self.analysis.as_dict(),
            **sent,
            "effective_neighbors": [
                {"gamma": gamma, "mean": found and found.mean, "worst": found and found.worst}
                for gamma, found in self.neighbors
            ],
            "effective_neighbors_method": self.method,
            "noise": self.noise,
            "best": best,
            "rates": [{"lr": learning_rate, "rate": rate} for learning_rate, rate in self.curve],
            "methods": [asdict(verdict) for verdict in self.verdicts],
        }


def explained(topology: Topology, noise: float = DEFAULT_NOISE) -> Explanation:
    """The explanation of a topology.

    Args:
        noise: zeta of the quadratic.

    Raises:
        ConfigError: noise is not above 1.
    """
    check_noise(noise)
    analysis = analyze(topology)
    told = analysis, traffic(topology), admissions(topology, analysis), noise
    neighbors = _neighbors(topology)
    if isinstance(neighbors, str):
        return Explanation(*told, neighbors)
    rates = QuadraticRates(neighbors, noise)
    return Explanation(
        *told,
        neighbors.method,
        [(gamma, neighbors.at(gamma)) for gamma in GAMMAS],
        [(learning_rate, rates.rate(learning_rate)) for learning_rate in LEARNING_RATES],
        rates.best(),
        rates,
    )


def _neighbors(topology: Topology) -> EffectiveNeighbors | str:
    try:
        return effective_neighbors(topology)
    except ConfigError as error:
        return str(error)
