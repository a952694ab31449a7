"""What the nodes of a hub's method remember; the symbols are those of `hub`."""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.asynchronous import AsynchronousState
from decentral.peer import Payload


@dataclass(slots=True)
class Job:
    changes: int  # k' when it was handed out
    start: Tensor | None  # (d,) x then, for methods that look at it again


@dataclass(slots=True, eq=False)
class Result:
    """What has come back."""

    node: int
    job: Job
    vector: Tensor  # (d,)

    def delay(self, state: "HubState") -> int:
        """tau."""
        return state.changes - self.job.changes


@dataclass(slots=True)
class HubState(AsynchronousState):
    """The upper part is the hub's, the lower one that of the others."""

    changes: int
    computed: int  # gradients that were computed for it
    handed_out: int
    jobs: dict[int, list[Job]]  # of each node, in the order in which it does them
    held: list[Result]
    free: list[int]  # the nodes of jobs that came back, for each of which there is to be another
    gone: list[int]  # nodes that have made their steps
    order: list[int]  # nodes that are to come, where they are shuffled
    begins: bool  # whether jobs are to be handed out that no other has made room for

    done: int  # gradients of the job that is under way; -1 without one
    start: Tensor  # (d,) what that began with
    loss: Tensor  # (1,) the last minibatch's; at the hub, the last that came

    mark: Tensor  # (1,) all that a refusal says

    def kinds(self) -> tuple[Payload, ...]:
        """A letter of each kind, for its shapes: a vector, with the loss of those that come back; and a refusal."""
        return (self.x, self.loss), (self.mark,)

    def out(self) -> list[int]:
        """k' of all jobs that have not come back."""
        return [job.changes for jobs in self.jobs.values() for job in jobs]

    def busy(self, *, held: bool) -> list[int]:
        """The nodes of all jobs that have not made room for others; of those that are `held`, too."""
        doing = [node for node, jobs in self.jobs.items() for _ in jobs]
        return doing + self.free + ([result.node for result in self.held] if held else [])
