"""A module and its minibatches as a function of one flat vector: the only place that knows the module."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from decentral.errors import ConfigError
from decentral.peer import Block, Layout, LossAndGradient
from decentral.training.batches import Batches
from decentral.user_code import blame

Loss = Callable[[Tensor, Tensor], Tensor]


def layout_of(module: nn.Module) -> Layout:
    """The trainable parameters in the module's order, one after the other."""
    blocks, start = [], 0
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            blocks.append(Block(name, tuple(parameter.shape), start))
            start += parameter.numel()
    return tuple(blocks)


def flat(module: nn.Module) -> Tensor:
    """A copy `(d,)` of the trainable parameters, in the layout's order."""
    return nn.utils.parameters_to_vector(p for p in module.parameters() if p.requires_grad).detach()


class Views:
    """Parameters that lie in one flat vector, whichever it is at the time.

    Attributes:
        vector: `(d,)`, the one they lie in; None where they have memory of their own.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], layout: Layout) -> None:
        self._parameters, self._layout = parameters, layout
        self.vector: Tensor | None = None
        self._address = 0

    def point_at(self, vector: Tensor) -> None:
        """Make the parameters views of `vector: (d,)`."""
        # The same vector may have other memory: mixing moves it.
        if vector is not self.vector or vector.data_ptr() != self._address:
            for parameter, block in zip(self._parameters, self._layout, strict=True):
                parameter.data = block.of(vector)
            self.vector, self._address = vector, vector.data_ptr()


class Objective:
    """One node's objective.

    Args:
        module: the node's own; its trainable parameters become views into the vector last asked about.
        loss: mean over a minibatch, from outputs and targets.
        batches: the node's minibatches.
    """

    def __init__(self, module: nn.Module, loss: Loss, batches: Batches) -> None:
        self.layout = layout_of(module)
        self.module, self._loss, self.batches = module, loss, batches
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._noise = batches.integer_seed("forward") >> 1
        self._views = Views(self._parameters, self.layout)
        self._gradients: list[tuple[Tensor, list[Tensor]]] = []  # one for each Gradient of a step, and its blocks
        self._asked = 0

    def begin_step(self) -> None:
        """Take back the gradients of the last step."""
        self._asked = 0

    def gradient(self, at: Tensor) -> LossAndGradient:
        """Loss `()` and flat gradient `(d,)` of the next minibatch; the gradient is the step's own until its end."""
        module = self.module_at(at)
        gradient, blocks = self._next_gradient(at)
        gradient.zero_()
        for parameter, block in zip(self._parameters, blocks, strict=True):
            parameter.grad = block
        # Dropout and the like draw from torch's one generator: what it gives may depend on this node and batch alone.
        _seed_forward(self._noise + self.batches.taken, at.device)
        inputs, targets = self.batches.next()
        try:
            loss = self._loss(module(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ConfigError(f"the model failed in training: {blame(error)}") from error
        return LossAndGradient(loss.detach(), gradient)

    def module_at(self, at: Tensor) -> nn.Module:
        """The module with its parameters at `at: (d,)`, as views."""
        self._views.point_at(at)
        return self.module

    def _next_gradient(self, at: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self._asked == len(self._gradients):
            self._gradients.append((torch.empty_like(at), []))
        gradient, blocks = self._gradients[self._asked]
        if not blocks or blocks[0].data_ptr() != gradient.data_ptr():  # mixing may have moved it
            blocks[:] = [block.of(gradient) for block in self.layout]
        self._asked += 1
        return gradient, blocks


def _seed_forward(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":  # a GPU has a generator of its own
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
