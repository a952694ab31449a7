"""Muon for whole models: torch's Muon on the matrices, and AdamW on everything else, at one learning rate.

torch.optim.Muon takes matrices alone and refuses biases, norms and kernels. Its steps are scaled to the size of
AdamW's here (`match_rms_adamw`, 0.2 sqrt(max(rows, columns)) lr), so that one learning rate, and one schedule of it, is
right for both. Embeddings and output layers are matrices too, and Muon steps them, where Jordan advises AdamW.

References: Jordan et al. 2024, Muon (kellerjordan.github.io/posts/muon); Liu et al. 2025 (arXiv:2502.16982), section 2,
for the scale; as the inner optimizer of DiLoCo it is MuLoCo, Therien et al. 2025 (arXiv:2505.23725).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """The first parameter group is Muon's, the second, if there is anything in it, AdamW's.

    Args:
        params: tensors, at least one of them a matrix.
        lr: of both.
        weight_decay: decoupled, of both.
        momentum: Muon's, Nesterov's form.
        ns_steps: of its Newton-Schulz iteration.
        betas: AdamW's.
        eps: AdamW's.

    Raises:
        ValueError: no parameter is a matrix, so that AdamW is what is wanted.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        tensors = list(params)
        matrices, others = ([p for p in tensors if (p.ndim == 2) is wanted] for wanted in (True, False))
        if not matrices:
            raise ValueError("found no parameter that is a matrix; Muon needs one: take torch.optim.AdamW")
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr, weight_decay, momentum=momentum, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
            )
        ]
        if others:
            betas = (float(betas[0]), float(betas[1]))  # a list, where they come of a file
            self._parts.append(torch.optim.AdamW(others, lr, betas, eps, weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both.

        Raises:
            ValueError: a closure, which neither needs.
        """
        if closure is not None:
            raise ValueError("found a closure; Muon steps once for each gradient and takes none")
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # load_state_dict makes others of them
            part.step()
