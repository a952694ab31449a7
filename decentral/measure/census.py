"""The end of a run that survives deaths: what tokens are missing come back from their copies, and where all are."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.custody import account, settle
from decentral.algorithms.token import digest
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import LostMeetingError
from decentral.measure.comparison import RestingToken
from decentral.peer import Peer
from decentral.training.loop import Conclude
from decentral.transport.driver import Driver


def census_of(algorithm: Algorithm, driver: Driver, peers: Mapping[int, Peer]) -> Conclude | None:
    """What the nodes of a run do together after its last round; None where there is nothing to settle."""
    return Census(algorithm, driver, peers) if isinstance(algorithm, TokenMethod) and algorithm.survive else None


class Census:
    """All tokens of a run.

    Args:
        algorithm: whose.
        driver: that hosts nodes; its `gather` brings together what they say.
        peers: of each hosted node.
    """

    def __init__(self, algorithm: TokenMethod, driver: Driver, peers: Mapping[int, Peer]) -> None:
        self._algorithm, self._driver, self._peers = algorithm, driver, peers

    def __call__(self, states: Mapping[int, Any]) -> dict[str, Any]:
        """Settle, and tell where the tokens are.

        Raises:
            LostNeighborError: a token died with all that could bring it back.
        """
        try:
            return {"tokens": self._found(states)}
        except LostMeetingError:
            return {}  # whoever measures finds the same

    def _found(self, states: Mapping[int, Any]) -> list[RestingToken]:
        tokens: list[RestingToken] = []
        while len(tokens) < self._algorithm.tokens:  # again, where a holder died meanwhile
            self._settle(states)
            rows = self._driver.gather({node: self._listed(state) for node, state in states.items()})
            tokens = [
                RestingToken(
                    number=k, visit=int(visit), generation=int(generation), holder=node, digest=f"{int(crc):08x}"
                )
                for node, row in enumerate(rows)
                for k, (visit, generation, crc) in enumerate(
                    torch.tensor(row, dtype=torch.float64).view(-1, 3).tolist()
                )
                if not math.isnan(visit) and visit >= 0
            ]
        return sorted(tokens, key=lambda token: token.number)

    def _settle(self, states: Mapping[int, Any]) -> None:
        said = {node: account(state.held, state.custody).flatten().tolist() for node, state in states.items()}
        rows = self._driver.gather({node: [float(stamp) for stamp in stamps] for node, stamps in said.items()})
        accounts = {
            node: torch.tensor(rows[node], dtype=torch.float64).to(torch.int64).view(2, -1)
            for node in self._driver.living
        }
        for node, state in states.items():
            settle(state.held, state.custody, accounts, self._peers[node])
            self._algorithm.look(state)

    def _listed(self, state: Any) -> list[float]:
        """Three numbers of each token: what is below 0 where it is elsewhere."""
        listed = [-1.0] * (3 * self._algorithm.tokens)
        for number, token in state.held.items():
            carried = token.vectors if token.counts is None else [*token.vectors, token.counts]
            listed[3 * number : 3 * number + 3] = token.visit, token.generation, digest(carried)
        return listed
