"""What one node carries from round to round, taken out of a run and put back: all that a checkpoint holds of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from decentral.algorithms.algorithm import State
from decentral.errors import ConfigError
from decentral.peer import Block, Layout
from decentral.training.objective import Objective
from decentral.training.packing import pack, unpack


@dataclass(frozen=True)
class Snapshot:
    """One node between two rounds.

    Attributes:
        round: rounds completed.
        seconds: of training until then, by the clock of this node's process.
        bytes_sent: by the node so far.
        batches_taken: how many minibatches the node has drawn.
        layout: where each trained parameter lies in the flat vector `state.x`.
        tree: the algorithm's State; its tensors are among `tensors`.
        tensors: of the State under `state.`, and of the module under `module.`: buffers, and parameters not trained.
        course: what a node of a free run carries besides, with tensors under `course.`; None where nodes have rounds.
    """

    round: int
    seconds: float
    bytes_sent: int
    batches_taken: int
    layout: Layout
    tree: Any
    tensors: Mapping[str, Tensor]
    course: Any = None

    def model(self) -> dict[str, Tensor]:
        """The node's model under the module's own names."""
        x = self.tensors["state.x"]
        trained = {block.name: block.of(x).clone() for block in self.layout}
        others = {name.removeprefix("module."): t for name, t in self.tensors.items() if name.startswith("module.")}
        return trained | others

    def numbers(self) -> dict[str, Any]:
        """All but the tensors, as a JSON document."""
        told = {
            "round": self.round,
            "seconds": self.seconds,
            "bytes_sent": self.bytes_sent,
            "batches_taken": self.batches_taken,
            "layout": [[block.name, list(block.shape), block.start] for block in self.layout],
            "state": self.tree,
        }
        return told if self.course is None else told | {"course": self.course}

    @classmethod
    def of(cls, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Snapshot":
        """The snapshot that was made into `numbers` and `tensors`."""
        layout = tuple(Block(name, tuple(shape), start) for name, shape, start in numbers["layout"])
        return cls(
            numbers["round"],
            numbers["seconds"],
            numbers["bytes_sent"],
            numbers["batches_taken"],
            layout,
            numbers["state"],
            tensors,
            numbers.get("course"),
        )


def capture(
    state: State, objective: Objective, round: int, seconds: float, bytes_sent: int, course: object = None
) -> Snapshot:
    """A node as it is; the tensors share its memory, so they are to be written before it goes on.

    Args:
        course: what a node of a free run carries besides.

    Raises:
        ConfigError: the algorithm's State or the local optimizer's holds what no checkpoint can.
    """
    tree, tensors = pack(state, "state")
    course_tree, more = pack(course, "course")
    tensors |= more
    tensors |= {f"module.{name}": tensor.detach().contiguous() for name, tensor in _untrained(objective.module).items()}
    return Snapshot(round, seconds, bytes_sent, objective.batches.taken, objective.layout, tree, tensors, course_tree)


def restore(snapshot: Snapshot, state: State, objective: Objective) -> None:
    """Put a node back where it was: its State in place, its module's buffers, its place among the minibatches.

    Args:
        state: as the algorithm's `init` made it.

    Raises:
        ConfigError: the snapshot is of another model or another program.
    """
    if tuple(snapshot.layout) != tuple(objective.layout):
        raise ConfigError("the checkpoint is of another model: its parameters have other names or shapes")
    own = _untrained(objective.module)
    saved = {name.removeprefix("module."): t for name, t in snapshot.tensors.items() if name.startswith("module.")}
    if {name: (t.shape, t.dtype) for name, t in own.items()} != {name: (t.shape, t.dtype) for name, t in saved.items()}:
        raise ConfigError("the checkpoint is of another model: its buffers have other names, shapes or types")
    unpack(snapshot.tree, snapshot.tensors, state)
    for name, tensor in own.items():
        tensor.detach().copy_(saved[name])
    objective.batches.taken = snapshot.batches_taken


def _untrained(module: nn.Module) -> dict[str, Tensor]:
    frozen = {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return frozen | dict(module.named_buffers())
