"""Between rounds, all nodes of a run agree on one round to checkpoint, without a barrier and without a look-up a round.

Each rank has a listener, a thread that sleeps in the store until a message for its rank arrives. On a request:

    1. node 0's listener asks every listener where its node is;
    2. each answers with the round that its node is in, and its node begins no further one from that moment;
    3. node 0's listener publishes T, the highest answer + 1: the first round that nobody has begun;
    4. the nodes go on, and each checkpoints when it comes to T.

Listeners answer while their node computes or waits for a neighbor, so no node waits for another node's round; it may be
held up between two rounds for the milliseconds of the exchange. No bound on how far nodes are apart is needed, so this
holds for every graph and every algorithm.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import IntEnum
from threading import Condition, Thread
from time import monotonic, sleep

from torch.distributed import Store  # type: ignore[attr-defined]

from decentral.errors import DecentralError, LostNeighborError

ANSWER_S = 5.0
"""How long a listener may take to answer; it needs the interpreter for microseconds."""
_LOOK_AGAIN_S = 0.05
_FOR_EVER = timedelta(days=30)


class Wish(IntEnum):
    """What is to be done between two rounds."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Agreement:
    """One rank's part in agreeing on a round, and in making a checkpoint whole.

    Args:
        store: of this run; nobody else may use its prefix.
        rank: of this process.
        size: how many there are.
        timeout_s: how long the nodes may take to come to the agreed round.
        whole: called on node 0's listener once all nodes have written a round, with each one's report by rank; it makes
            the checkpoint whole and returns what the others must know.
        told: called with that on every other listener.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        timeout_s: float,
        whole: Callable[[int, Mapping[int, str]], str],
        told: Callable[[int, str], None],
    ) -> None:
        self._main = store
        self._own = store.clone()  # type: ignore[attr-defined]  # a wait holds up whoever uses the same client
        self._rank, self._size, self._timeout_s = rank, size, timeout_s
        self._make_whole, self._told = whole, told
        self._changed = Condition()
        self._round = -1  # that this node is in
        self._held = False
        self._agreed: dict[int, Wish] = {}
        self._refused = 0
        self._whole = -1
        self._failure: Exception | None = None
        self._asked = 0
        self._leaving = False
        self._thread = Thread(target=self._listen, name="agreement", daemon=True)

    def begin(self, round: int) -> None:
        """Listen from now on; `round` is the first that this node will run."""
        self._round = round - 1
        self._thread.start()

    def at(self, round: int) -> Wish:
        """This node is about to begin a round: what was agreed for it.

        Raises:
            LostNeighborError: node 0 held this node up and did not say why in time.
            OSError: a checkpoint could not be written.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._held, self._timeout_s + ANSWER_S):
                raise LostNeighborError(f"node {self._rank} waited for node 0 to say which round to checkpoint in vain")
            if isinstance(self._failure, OSError):
                raise self._failure
            self._round = round
            return self._agreed.get(round, Wish.NOTHING)

    def of(self, round: int) -> Wish:
        """What is agreed for a round that this node has not begun, as far as it knows."""
        with self._changed:
            return self._agreed.get(round, Wish.NOTHING)

    def ask(self, wish: Wish, round: int) -> bool:
        """Ask for a checkpoint of this or a later round, before `at`; whether one is agreed on.

        Raises:
            LostNeighborError: node 0 cannot be reached.
        """
        with self._changed:
            refused = self._refused
            if self._serves(wish, round):
                return True
        self._post(self._main, 0, f"ask {wish:d} {round}")
        with self._changed:
            self._changed.wait_for(
                lambda: self._serves(wish, round) or self._refused > refused, self._timeout_s + ANSWER_S
            )
            return self._serves(wish, round)

    def written(self, round: int, report: str) -> None:
        """This node's files of a round are on the disk; `report` goes to node 0."""
        self._main.set(f"written/{round}/{self._rank}", report)
        if self._rank == 0:
            self._post(self._main, 0, f"collect {round}")

    def wait_whole(self, round: int) -> None:
        """Until the checkpoint of a round is whole.

        Raises:
            LostNeighborError: some node did not write its part in time.
            OSError: it could not be written.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._whole >= round or self._failure is not None, 3 * self._timeout_s)
            if self._whole >= round:
                return
        raise self._failure or LostNeighborError(
            f"node {self._rank} waited {3 * self._timeout_s:g} s for the checkpoint of round {round} in vain"
        )

    def close(self, in_peace: bool) -> None:
        """Listen no more; in peace, finish first what is under way."""
        self._leaving = not in_peace
        with suppress(LostNeighborError):  # the store is gone, and the listener with it
            self._post(self._main, self._rank, "end")
        # A thread that wakes in the store while the interpreter is on its way out would abort the process.
        if self._thread.is_alive():
            self._thread.join(self._timeout_s if in_peace else ANSWER_S)

    def _post(self, store: Store, to: int, message: str) -> None:
        try:
            number = store.add(f"sent/{to}", 1)
            store.set(f"message/{to}/{number}", message)
        except RuntimeError as error:
            raise LostNeighborError(f"node {self._rank} cannot reach node {to} through the store") from error

    def _listen(self) -> None:
        number = 1
        try:
            while (message := self._next(number)) != "end":
                self._obey(message)
                number += 1
        except (DecentralError, OSError, RuntimeError) as error:
            lost = LostNeighborError(f"node {self._rank} lost the store in which the nodes agree: {error}")
            with self._changed:
                self._failure, self._held = lost if isinstance(error, RuntimeError) else error, False
                self._refused += 1
                self._changed.notify_all()

    def _next(self, number: int) -> str:
        key = f"message/{self._rank}/{number}"
        self._own.wait([key], _FOR_EVER)
        message: str = self._own.get(key).decode()
        self._own.delete_key(key)
        return message

    def _obey(self, message: str) -> None:
        verb, *words = message.split(maxsplit=2)
        match verb, words:
            case "ask", [wish, round]:
                self._agree(Wish(int(wish)), int(round))
            case "where", [number]:
                self._own.set(f"at/{number}/{self._rank}", str(self._hold()))
            case "agreed", [round, wish]:
                self._release(int(round), Wish(int(wish)))
            case "refused", []:
                self._release(None, Wish.NOTHING)
            case "collect", [round]:
                self._collect(int(round))
            case "whole", [round, text]:
                self._told(int(round), text)
                self._own.set(f"told/{round}/{self._rank}", "")
                self._became_whole(int(round))

    def _hold(self) -> int:
        with self._changed:
            self._held = True
            return self._round

    def _release(self, round: int | None, wish: Wish) -> None:
        with self._changed:
            self._held = False
            if round is None:
                self._refused += 1
            else:
                self._agreed[round] = max(wish, self._agreed.get(round, Wish.NOTHING))
            self._changed.notify_all()

    def _became_whole(self, round: int) -> None:
        with self._changed:
            self._whole = max(round, self._whole)
            self._changed.notify_all()

    def _serves(self, wish: Wish, round: int) -> bool:
        """Whether what is agreed already is what is asked for: all ranks are signaled at once, and each one asks."""
        return any(agreed >= round and its >= wish for agreed, its in self._agreed.items())

    def _agree(self, wish: Wish, round: int) -> None:
        with self._changed:
            if self._serves(wish, round):
                return
        self._asked += 1
        for rank in range(1, self._size):
            self._post(self._own, rank, f"where {self._asked}")
        rounds = self._answers(f"at/{self._asked}", self._hold())
        outcome = "refused" if rounds is None else f"agreed {max(rounds) + 1} {wish:d}"
        for rank in range(1, self._size):
            self._post(self._own, rank, outcome)
        self._release(None if rounds is None else max(rounds) + 1, wish)

    def _answers(self, prefix: str, own: int) -> list[int] | None:
        keys = [f"{prefix}/{rank}" for rank in range(1, self._size)]
        if not self._arrived(keys, ANSWER_S):
            return None
        return [own, *(int(self._own.get(key)) for key in keys)]

    def _arrived(self, keys: list[str], patience_s: float) -> bool:
        """Whether all keys are set before so many seconds have passed."""
        end, pause_s = monotonic() + patience_s, 0.001
        while keys and not self._own.check(keys):
            if self._leaving or monotonic() > end:
                return False
            sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_AGAIN_S)
        return True

    def _collect(self, round: int) -> None:
        keys = [f"written/{round}/{rank}" for rank in range(self._size)]
        if not self._arrived(keys, self._timeout_s):
            warnings.warn(f"the checkpoint of round {round} is not whole: a node did not write its part", stacklevel=2)
            return
        reports = {rank: self._own.get(key).decode() for rank, key in enumerate(keys)}
        text = self._make_whole(round, reports)
        for rank in range(1, self._size):
            self._post(self._own, rank, f"whole {round} {text}")
        # Where node 0 keeps the store, nobody can be told anything once it has ended.
        self._arrived([f"told/{round}/{rank}" for rank in range(1, self._size)], ANSWER_S)
        self._became_whole(round)
