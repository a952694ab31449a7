"""The lockstep simulator: all nodes in one process, round by round. It is the oracle of every other driver.

Each node is advanced until it asks for something; whatever can be answered is answered, in ascending order of nodes.
Messages between two nodes match if both ends began them at the same place: their n-th exchange of the same round, as
the frames of a link say it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decentral.errors import DecentralError
from decentral.peer import (
    AllReduce,
    Collect,
    Effect,
    Exchange,
    Gather,
    Gradient,
    Messages,
    Mix,
    Payload,
    Post,
    Receive,
    Send,
    Ticket,
    first_tensors,
    weighted_sum,
)
from decentral.transport.driver import (
    Finished,
    GradientAt,
    Simulator,
    Step,
    all_reduce_bytes,
    both_ways,
    check_alike,
    check_untouched,
    copied_views,
    gather_bytes,
    mean_of,
    members,
    proceed,
    versions,
)
from decentral.transport.frames import HEADER_BYTES, payload_bytes
from decentral.transport.mail import Mail, changed

_NOT_YET = object()


class DeadlockError(DecentralError):
    """No node can go on; the text names who waits for whom."""


class _Offered(NamedTuple):
    payload: Payload
    versions: tuple[int, ...]
    copy: Payload  # of the views in it


@dataclass(slots=True)
class _Posted:
    node: int
    messages: Messages
    offered: list[_Offered]
    place: tuple[int, int]  # the round, and how many exchanges the node began in it before


class LockstepDriver(Simulator):
    """Hosts all nodes.

    Args:
        gradients: for each node, its answer to `Gradient`.
        poison: overwrite every answer with NaN once its step has ended, to catch a method that keeps an alias.
    """

    def __init__(self, gradients: Sequence[GradientAt], poison: bool = False) -> None:
        self.hosted = tuple(range(len(gradients)))
        self.bytes_sent = dict.fromkeys(self.hosted, 0)
        self._gradients = gradients
        self._poison = poison
        self._answered: list[Tensor] = []
        self._given: list[tuple[int | None, Payload, tuple[int, ...]]] = []  # in this round, to whom; None: to all
        self._mail: dict[tuple[int, int, tuple[int, int]], Payload] = {}  # (sender, receiver, place)
        self._round = 0
        self._exchanges: dict[int, int] = {}  # by each node, begun in this round
        self._posted: dict[Ticket, _Posted] = {}
        self._tickets = 0
        self._mixing: dict[int, Ticket] = {}  # of each node, the exchange of its Mix
        self._letters = Mail(self.hosted, poison)

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        try:
            losses = self._advance(steps, round)
        except BaseException:
            self.close()  # half a round is in the mail: a later one would take its messages for its own
            raise
        finally:
            for step in steps.values():
                step.close()
        self._check_unchanged()
        self._forget_answers()
        return losses

    def _advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        self._round, self._exchanges = round, dict.fromkeys(self.hosted, 0)
        losses: dict[int, Tensor] = {}
        waiting: dict[int, Effect[Any]] = {}
        answers: dict[int, object] = dict.fromkeys(sorted(steps))
        while answers:
            for node, answer in answers.items():
                asked = proceed(steps[node], answer)
                if isinstance(asked, Finished):
                    losses[node] = asked.loss
                else:
                    waiting[node] = self._begun(node, asked)
            answers = self._answers(waiting)
            if waiting and not answers:
                raise DeadlockError(f"round {round}: {self._who_waits(waiting)}")
            for node in answers:
                del waiting[node]
        self._check_all_taken()
        return losses

    def _begun(self, node: int, asked: Effect[Any]) -> Effect[Any]:
        """Put an exchange's messages into the mail; what is left to wait for is its Collect."""
        if isinstance(asked, Exchange):
            return Collect(self._post(node, asked.messages))
        if isinstance(asked, Mix):
            self._mixing[node] = self._post(node, Messages.alike((asked.x,), asked.row.to, asked.row.sources))
        return asked

    def _answers(self, waiting: Mapping[int, Effect[Any]]) -> dict[int, object]:
        letters, asked = self._letters, waiting
        busy = (node for node in sorted(asked) if not (_waits(asked[node]) and letters.is_empty(node)))
        answers = {node: self._answer(node, asked[node]) for node in busy}
        answered = {node: answer for node, answer in answers.items() if answer is not _NOT_YET}
        return answered | self._all_reduced(waiting) | self._gathered(waiting)

    def _answer(self, node: int, asked: Effect[Any]) -> object:
        match asked:
            case Gradient(at=at):
                answer = self._gradients[node](at)
                self._lend(answer.gradient)
                return answer
            case Post(messages=messages):
                return self._post(node, messages)
            case Collect(ticket=ticket):
                return self._collect(node, ticket)
            case Mix():
                return self._mix(node, asked)
            case AllReduce() | Gather():
                return _NOT_YET
            case Send():
                self._send(node, asked)
                return None
            case Receive(wait=True):
                return self._letters.take(node, asked) or _NOT_YET
            case _:
                raise TypeError(f"the lockstep driver does not answer {type(asked).__name__}")

    def _send(self, node: int, asked: Send) -> None:
        if self._tickets:
            raise both_ways(node)
        letter, nbytes = self._letters.letter(node, asked)
        self._letters.deliver(asked.to, letter)
        self.bytes_sent[node] += nbytes

    def _post(self, node: int, messages: Messages) -> Ticket:
        if self._letters.used:
            raise both_ways(node)
        place = self._round, self._exchanges[node]
        self._exchanges[node] += 1
        for receiver, payload in messages.to.items():
            check_alike(payload, messages.like, node, receiver)
            self._mail[node, receiver, place] = tuple(tensor.clone() for tensor in payload)
        self.bytes_sent[node] += len(messages.to) * (HEADER_BYTES + payload_bytes(messages.like))
        self._tickets += 1
        ticket = Ticket(self._tickets)
        offered = [_Offered(payload, versions(payload), copied_views(payload)) for payload in messages.offered]
        self._posted[ticket] = _Posted(node, messages, offered, place)
        return ticket

    def _collect(self, node: int, ticket: Ticket) -> Any:
        posted = self._posted[ticket]
        if self._missing(node, posted):
            return _NOT_YET
        for offered in posted.offered:
            check_untouched(offered.payload, offered.versions, node, offered.copy)
        del self._posted[ticket]
        sources = sorted(posted.messages.sources)
        received = {sender: self._mail.pop((sender, node, posted.place)) for sender in sources}
        for sender, payload in received.items():
            check_alike(payload, posted.messages.like, sender, node)
        self._lend(*(tensor for payload in received.values() for tensor in payload))
        self._given += [(node, payload, versions(payload)) for payload in received.values()]
        return received

    def _mix(self, node: int, asked: Mix) -> object:
        received = self._collect(node, self._mixing[node])
        if received is _NOT_YET:
            return _NOT_YET
        weighted_sum(asked.row.weights, first_tensors(node, asked.x, received), out=asked.x)
        return None

    def _check_all_taken(self) -> None:
        """Raise if a node sent to one that does not receive: on real links it would wait in vain."""
        if not self._mail:
            return
        expected = {(j, due.node, due.place) for due in self._posted.values() for j in due.messages.sources}
        for sender, receiver, (round, sequence) in self._mail.keys() - expected:
            raise RuntimeError(
                f"node {sender} sent node {receiver} a message that it does not receive (exchange {sequence} of round "
                f"{round}); whom a node receives from is its row's sources, and whom it sends to its row's `to`"
            )

    def _missing(self, node: int, posted: _Posted) -> list[int]:
        return [sender for sender in posted.messages.sources if (sender, node, posted.place) not in self._mail]

    def _all_reduced(self, waiting: Mapping[int, Effect[Any]]) -> dict[int, object]:
        """The means among nodes of whom all have asked."""
        asked: dict[tuple[int, ...], dict[int, Tensor]] = {}
        for node, effect in sorted(waiting.items()):
            if isinstance(effect, AllReduce):
                asked.setdefault(members(effect, node, len(self.hosted)), {})[node] = effect.x
        answers: dict[int, object] = {}
        for together, vectors in asked.items():
            if len(vectors) == len(together):
                answers |= self._mean_among(vectors)
        return answers

    def _mean_among(self, vectors: Mapping[int, Tensor]) -> dict[int, Tensor]:
        mean = mean_of([*vectors.values()])
        for node in vectors:
            self.bytes_sent[node] += all_reduce_bytes(mean, len(vectors))
        copies = {node: mean.clone() for node in vectors}
        self._lend(*copies.values())
        return copies

    def _gathered(self, waiting: Mapping[int, Effect[Any]]) -> dict[int, object]:
        """All nodes' payloads, once all have asked; every node is lent the same copies."""
        asked = {node: effect.payload for node, effect in sorted(waiting.items()) if isinstance(effect, Gather)}
        if len(asked) < len(self.hosted):
            return {}
        for node, payload in asked.items():
            check_alike(payload, asked[0], node, 0)
            self.bytes_sent[node] += gather_bytes(payload, len(asked))
        copies = {node: tuple(tensor.clone() for tensor in payload) for node, payload in asked.items()}
        self._lend(*(tensor for payload in copies.values() for tensor in payload))
        self._given += [(None, payload, versions(payload)) for payload in copies.values()]
        return {node: dict(copies) for node in asked}

    def _lend(self, *answered: Tensor) -> None:
        if self._poison:
            self._answered += answered

    def _check_unchanged(self) -> None:
        """Raise if a node wrote into what it received: on one host that is the neighbor's own memory."""
        for node, payload, before in self._given:
            if versions(payload) != before:
                raise changed(node)
        self._given.clear()
        self._letters.close_all()

    def _forget_answers(self) -> None:
        for tensor in self._answered:
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
        self._answered.clear()

    def _who_waits(self, waiting: Mapping[int, Effect[Any]]) -> str:
        def reason(node: int, asked: Effect[Any]) -> str:
            if isinstance(asked, Receive):
                return f"node {node} waits for a letter"
            if not isinstance(asked, Collect | Mix):
                return f"node {node} waits in {type(asked).__name__}"
            ticket = asked.ticket if isinstance(asked, Collect) else self._mixing[node]
            return f"node {node} waits for node {self._missing(node, self._posted[ticket])[0]}"

        return "no node can go on: " + ", ".join(reason(node, asked) for node, asked in sorted(waiting.items())[:5])

    def close(self) -> None:
        self._mail.clear()
        self._posted.clear()
        self._answered.clear()
        self._given.clear()
        self._letters.clear()


def _waits(asked: Effect[Any]) -> bool:
    return isinstance(asked, Receive) and asked.wait
