"""What a node remembers of tokens, so that one whose holder dies lives on: copies, and who was seen where.

A token's stamp says how new it is: its generation, and within that its visits. `custody_round` says what is done.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.token import Token
from decentral.errors import LostNeighborError
from decentral.peer import Peer

NEVER = -1
"""The stamp of what never was; all others are larger."""
_VISITS = 1 << 40
"""More than any token makes."""


@dataclass(slots=True)
class Kept:
    """A copy of a token that another node holds."""

    holder: int  # to whom it was sent from here, or who stays there with it
    token: Token


@dataclass(slots=True)
class Custody:
    """Of K tokens, by number; neighbors and nodes by theirs."""

    kept: dict[int, Kept]
    custodians: dict[int, int]  # of the tokens held here, who keeps a copy; NOWHERE where nobody is left to
    generations: Tensor  # (K,) int64, the newest that the node has heard of
    rested: Tensor  # (K,) int64 stamps: when each rested last
    rested_at: Tensor  # (K,) int64: where
    came: dict[int, Tensor]  # (K,) int64 stamps: when each came last from a neighbor
    gone: list[int]  # the neighbors that will send nothing more
    testimonies: dict[int, dict[int, Tensor]]  # (2, K) int64 of `testimony`, about a dead node, by its neighbor

    @classmethod
    def opening(cls, starts: Sequence[int], kept: dict[int, Kept], custodians: dict[int, int]) -> "Custody":
        """Before the first visit, where token k rests at node `starts[k]`."""
        zeros = torch.zeros(len(starts), dtype=torch.int64)
        return cls(kept, custodians, zeros, zeros.clone(), torch.tensor(starts), {}, [], {})

    @property
    def dead(self) -> list[int]:
        """All nodes that the node knows to be dead."""
        return list(self.testimonies)

    def is_old(self, number: int, generation: int) -> bool:
        """Whether a newer token has taken the place of one of this generation."""
        return generation < int(self.generations[number])

    def note_arrival(self, token: Token, sender: int) -> None:
        """A token has come from a neighbor."""
        came = self.came.setdefault(sender, torch.full_like(self.rested, NEVER))
        came[token.number] = stamp(token.generation, token.visit)

    def note_rest(self, number: int, at: int, holder: int, custodian: int, node: int) -> bool:
        """A token rests, `at` being its stamp; whether that is news to `node`, whose records these are.

        What others keep of it is out of date, but for its custodian. What was given to the dead is evidence, and stays.
        """
        if at <= int(self.rested[number]):
            return False
        self.rested[number], self.rested_at[number] = at, holder
        kept = self.kept.get(number)
        if kept is not None and node != custodian and kept.holder not in self.testimonies and stamp_of(kept) <= at:
            del self.kept[number]
        return True

    def testimony(self, dead: int) -> Tensor:
        """What a node can say of the tokens that a dead neighbor had.

        Returns:
            (2, K) stamps: of the copy of what it holds that is kept here; of when each last came from there.
        """
        given = torch.full_like(self.rested, NEVER)
        for number, copy in self.kept.items():
            if copy.holder == dead:
                given[number] = stamp_of(copy)
        return torch.stack([given, self.came.get(dead, torch.full_like(given, NEVER))])

    def losses(self, group: Sequence[int], witnesses: Iterable[tuple[int, int]]) -> list["Loss"]:
        """Which tokens died with a group of dead nodes that hangs together.

        What entered the group left its trace with the neighbor that it came from, or was told to rest there before;
        what left it did so at the neighbor that it came to. The later of the two decides.

        Args:
            group: the dead nodes.
            witnesses: all living neighbors of theirs, each with whom of them it has testified about.
        """
        asked = sorted(witnesses)
        given, came = np.stack([self.testimonies[dead][witness].numpy() for witness, dead in asked], axis=1)
        resting = torch.where(torch.isin(self.rested_at, torch.tensor(group)), self.rested, NEVER)
        entered = np.maximum(given.max(0), resting.numpy())
        # What has been made anew already is not lost again.
        died = (entered > came.max(0)) & (entered // _VISITS >= self.generations.numpy())
        newest, keeper = given.max(0), given.argmax(0)
        return [
            Loss(number, None if newest[number] == NEVER else asked[keeper[number]][0])
            for number in np.flatnonzero(died).tolist()
        ]


class Loss(NamedTuple):
    """A token that died, and who has the newest copy of it; None where there is none."""

    number: int
    keeper: int | None


def stamp(generation: int, visit: int) -> int:
    """How new a token is."""
    return generation * _VISITS + visit


def stamp_of(copy: Kept) -> int:
    """How new a copy is."""
    return stamp(copy.token.generation, copy.token.visit)


def account(held: Mapping[int, Token], custody: Custody) -> Tensor:
    """`(2, K)` int64 stamps: of the tokens that a node holds, and of the copies that it keeps."""
    stamps = torch.full((2, len(custody.rested)), NEVER)
    for number, token in held.items():
        stamps[0, number] = stamp(token.generation, token.visit)
    for number, copy in custody.kept.items():
        stamps[1, number] = stamp_of(copy)
    return stamps


def settle(held: dict[int, Token], custody: Custody, accounts: Mapping[int, Tensor], peer: Peer) -> None:
    """At the end of a run: the newest copy of what nobody holds takes its place, and of two tokens the newest lives.

    Args:
        held: the tokens that the node holds, changed in place.
        accounts: of all living nodes, this one among them.

    Raises:
        LostNeighborError: a token died with all that could bring it back.
    """
    nodes = sorted(accounts)
    stamps = np.stack([accounts[each].numpy() for each in nodes])  # (n, 2, K)
    lives = stamps[:, 0].max(0) != NEVER  # (K,)
    newest = np.where(lives, stamps[:, 0].argmax(0), stamps[:, 1].argmax(0))
    for number, place in enumerate(newest.tolist()):
        if (stamps[:, :, number] == NEVER).all():
            raise died_with(number, sorted({*range(peer.nodes)}.difference(nodes)))
        if nodes[place] != peer.node:
            held.pop(number, None)
        elif not lives[number]:
            held[number] = custody.kept.pop(number).token
            held[number].generation += 1


def died_with(number: int, nodes: Sequence[int]) -> LostNeighborError:
    """The error of a token that nobody can bring back."""
    return LostNeighborError(
        f"token {number} died with {named(nodes)}, and so did its copies; a run survives deaths that come one by one"
    )


def named(nodes: Sequence[int]) -> str:
    """Some nodes in a text."""
    numbers = ", ".join(str(node) for node in sorted(nodes))
    return f"nodes {numbers}" if len(nodes) > 1 else f"node {numbers}"
