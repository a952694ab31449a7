"""One node's algorithm, advanced by the user's loop: its effects are performed, its `Gradient` is the user's to answer.

A round begins with the first forward pass in training after the last step, so that what the algorithm does before its
gradient (combine-then-adapt mixes, adapt-while-communicate posts) is done before that forward. It ends in
`optimizer.step()`. Between rounds the model is the state's x and nothing is under way: there it may be evaluated,
saved and loaded.
"""

from typing import Any

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import ConfigError
from decentral.peer import Gradient, LossAndGradient, Peer
from decentral.transport.driver import Finished, Step, proceed
from decentral.transport.rank import RankDriver
from decentral.wrapping.flat_model import FlatModel
from decentral.wrapping.user_optimizer import Answer, Closure, UserOptimizer

ROUNDS_WITHOUT_GRADIENT = 1_000_000


class Rounds:
    """The rounds of one wrapped model at this node.

    Attributes:
        round: rounds completed.
        state: the algorithm's.
    """

    def __init__(
        self, algorithm: Algorithm, driver: RankDriver, peer: Peer, model: FlatModel, local: UserOptimizer
    ) -> None:
        self.round = 0
        self.state: State = algorithm.init(model.x, peer)
        self._algorithm, self._driver, self._peer, self._model, self._local = algorithm, driver, peer, model, local
        self._step: Step | None = None
        self._asked: Gradient | None = None
        self._gradients: list[Tensor] = []  # one for each Gradient of a step
        self._answered = 0
        self._ended: str | None = None  # why no further round can begin

    @property
    def under_way(self) -> bool:
        """Whether a round has begun and not ended."""
        return self._step is not None

    def begin(self) -> None:
        """Begin a round, if none is under way, and go on to its gradient.

        Raises:
            ConfigError: the model or the optimizer changed since it was wrapped, or the run has ended.
            LostNeighborError: a neighbor died or stayed silent.
        """
        if self.under_way:
            return
        if self._ended is not None:
            raise ConfigError(f"no further step can be taken: {self._ended}")
        self._model.check()
        for _ in range(ROUNDS_WITHOUT_GRADIENT):
            self._peer.round = self.round
            self._driver.begin_round(self.round)
            self._step, self._answered = self._algorithm.step(self.state, self._peer), 0
            self._go_on(None)
            if self._asked is not None:
                return
        raise RuntimeError(
            f"{type(self._algorithm).__name__} asked for no gradient in {ROUNDS_WITHOUT_GRADIENT} rounds"
        )

    def begin_after_the_fact(self) -> None:
        """Begin a round whose gradient has been computed already: allowed where it was computed at the right point.

        Raises:
            ConfigError: the algorithm moves the model before its gradient.
        """
        if self.under_way:
            return
        x = self._model.x
        before = x._version
        self.begin()
        at = self._asked.at if self._asked is not None else None
        if at is not x or x._version != before:
            self.end("an earlier step failed")
            raise ConfigError(
                f"{type(self._algorithm).__name__} moves the model before its gradient, but no forward pass of the "
                "model in training mode (model.train(), gradients enabled) was seen before this step; call the model "
                "itself (compile it before it is wrapped), or optimizer.begin_round() before the loss is computed"
            )

    def answer(self, loss: Tensor | None, closure: Closure | None, skip: bool) -> None:
        """Answer the gradient that the round waits for with the parameters' `grad`, and go on to the round's end.

        Args:
            loss: `()` of the minibatch, where a closure has returned it.
            closure: evaluates the loss again, where the user gave one.
            skip: the gradients overflowed under GradScaler: the node takes part, but not with its gradient.
        """
        assert self._asked is not None
        gradient = self._next_gradient()
        if skip:
            gradient.zero_()
        else:
            self._model.gradient_into(gradient)
        loss = torch.zeros((), dtype=gradient.dtype) if loss is None else loss.detach()
        self._local.answer = Answer(gradient, gradient._version, skip, loss, closure)
        self._asked = None
        self._go_on(LossAndGradient(loss, gradient))
        self._local.answer = None

    def end(self, why: str) -> None:
        """Let no further round begin."""
        if self._step is not None:
            self._step.close()
        self._step, self._asked, self._ended = None, None, self._ended or why
        self._model.point_at(self._model.x)

    @torch.no_grad()
    def _go_on(self, answer: Any) -> None:
        """Perform the step's effects up to its next gradient, or to its end."""
        assert self._step is not None
        try:
            while not isinstance(asked := proceed(self._step, answer), Finished):
                if isinstance(asked, Gradient):
                    self._asked = asked
                    self._model.point_at(asked.at)
                    return
                answer = self._driver.perform(asked)
            self._driver.end_round()
        except BaseException as error:
            self.end(f"round {self.round} failed ({type(error).__name__})")
            raise
        self._step = None
        self.round += 1
        if self.state.x is not self._model.x:
            raise TypeError(f"{type(self._algorithm).__name__} replaced state.x; it must be updated in place")
        self._model.point_at(self.state.x)

    def _next_gradient(self) -> Tensor:
        if self._answered == len(self._gradients):
            self._gradients.append(torch.empty_like(self._model.x))
        self._answered += 1
        return self._gradients[self._answered - 1]
