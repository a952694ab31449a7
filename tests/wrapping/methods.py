"""The algorithms that tests of the wrapped loop run: the whole registry, and D-SGD in its orders."""

from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from decentral.algorithms import ALGORITHMS
from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.dsgd import Order
from decentral.algorithms.gradient_tracking import TrackingOrder
from decentral.peer import Peer

CORRECTED: dict[str, dict[str, Any]] = {
    **{f"tracking {order}": {"name": "gradient-tracking", "order": order} for order in get_args(TrackingOrder)},
    "d2": {"name": "d2"},
    "exact diffusion": {"name": "exact-diffusion"},
}
"""Those that correct the step of whichever optimizer there is; alone they are that optimizer."""

OWNING: dict[str, dict[str, Any]] = {
    "qg-dsgdm-n": {"name": "qg-dsgdm"},
    "qg-dadam": {"name": "qg-dadam"},
    "decentlam": {"name": "decentlam"},
    "momentum tracking": {"name": "momentum-tracking"},
    "gut": {"name": "gut"},
    "lead": {"name": "lead"},
    "econtrol": {"name": "econtrol", "compression": {"name": "top-k", "fraction": 0.1}},
}
"""Those that take the local step themselves."""

COMPRESSED: dict[str, dict[str, Any]] = {
    "choco": {"name": "choco", "compression": "sign", "consensus_step": 0.4},
    "beer": {"name": "beer", "compression": "int8", "consensus_step": 0.5},
    "motef": {"name": "motef", "compression": {"name": "top-k", "fraction": 0.3}, "consensus_step": 0.2},
    "deepsqueeze": {"name": "deepsqueeze", "compression": "sign", "consensus_step": 0.2},
    "dcd": {"name": "dcd", "compression": "int8"},
    "ecd": {"name": "ecd", "compression": "int8"},
}
"""Those that compress what they send, which must not be bfloat16."""

CENTRAL: dict[str, dict[str, Any]] = {
    "ef14": {"name": "ef14", "compression": {"name": "top-k", "fraction": 0.1}},
    "ef21": {"name": "ef21"},
    "ef21-sgdm": {"name": "ef21-sgdm", "double": True, "compression": "low-rank"},
    "dqsgd": {"name": "dqsgd"},
    "diana": {"name": "diana"},
    "ec-sgd-diana": {"name": "ec-sgd-diana"},
}
"""Centralized ones with compressed messages, which all nodes are sent."""
SUMMED: dict[str, dict[str, Any]] = {
    "sgp": {"name": "sgp"},
    "sgp overlapped": {"name": "sgp", "delay": 1},
    "relay-sgd": {"name": "relay-sgd"},
}
"""Those that pass on sums; alone they are the optimizer that there is."""

CONTROLLED: dict[str, dict[str, Any]] = {
    "controlled": {"name": "consensus-control", "of": "dsgd", "target": 0.3, "relative": True},
}
"""Consensus control, which is told the graph."""

SLOW = {"slowmo": {"name": "slowmo", "every": 4, "average": "none"}}

LITTLE: dict[str, dict[str, Any]] = {
    **{name: {"name": name, "every": 4} for name in ("gasloc", "noloco", "diloco", "fedavg")},
    "sparta": {"name": "sparta", "fraction": 0.05, "order": "adapt-while-communicate"},
}
"""Those that communicate seldom or little."""

ELSEWHERE = (CORRECTED, OWNING, COMPRESSED, CENTRAL, SUMMED, SLOW, LITTLE)

METHODS: dict[str, dict[str, Any]] = {
    **{
        name: {"name": name}
        for name in ALGORITHMS
        if name not in ("sparseloco", "epidemic")  # which need a compressor that is not bfloat16, and draws
        and name not in {m["name"] for kind in ELSEWHERE for m in kind.values()}
    },
    "hierarchical": {"name": "hierarchical", "group": 1},
    **{f"dsgd {order}": {"name": "dsgd", "order": order} for order in get_args(Order)},
    "dsgd every third round": {"name": "dsgd", "every": 3},
    "dsgd combine-then-adapt every other round": {"name": "dsgd", "every": 2, "order": "combine-then-adapt"},
}

REDUCING = ("allreduce", "hierarchical", "diloco", "fedavg")
"""Those that use the engine's sums; the first two in place of the node's own gradient."""


@dataclass(slots=True)
class Memory(State):
    drift: Tensor  # (d,)
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Drifting(Algorithm):
    """A method with a memory of its own, which mixes before its gradient and asks for that elsewhere than at x."""

    decay: float = 0.5

    def init(self, x: Tensor, peer: Peer) -> Memory:
        return Memory(x=x, local=self.local.bind(x, peer.layout), drift=torch.zeros_like(x))

    async def step(self, state: Memory, peer: Peer) -> Tensor:  # type: ignore[override]
        await peer.mix_(state.x)
        at = state.x + state.drift
        loss, gradient = await peer.gradient(at)
        before = state.x.clone()
        state.local.step(gradient * 1.5)
        state.drift.mul_(self.decay).add_(state.x - before)
        state.steps += 1
        return loss


@dataclass(frozen=True, kw_only=True)
class TwoGradients(Algorithm):
    """Extragradient: two minibatches a round, so two steps of the user's loop."""

    async def step(self, state: State, peer: Peer) -> Tensor:
        _, first = await peer.gradient(state.x)
        loss, second = await peer.gradient(state.x - 0.01 * first)
        state.local.step(second)
        await peer.mix_(state.x)
        return loss


@dataclass(frozen=True, kw_only=True)
class Doubling(Algorithm):
    """Writes into the gradient that it was given: the step must be taken with what it has become."""

    async def step(self, state: State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient.mul_(2))
        await peer.mix_(state.x)
        return loss
