"""What a PyTorch training loop may do, each as a loop over any model and optimizer: plain torch's own or wrapped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

STEPS, SAMPLES, INPUTS = 6, 12, 5

Loop = Callable[[nn.Module, Optimizer], None]


def batches(dtype: torch.dtype = torch.float32, seed: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """The same every time; the targets want large gradients, so that clipping has something to clip."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        inputs = torch.randn(SAMPLES, INPUTS, generator=draw)
        yield inputs.to(dtype), (3 * inputs.sum(1, keepdim=True) + 1).to(dtype)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 7), nn.Tanh(), nn.Linear(7, 1))


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 1))


def frozen() -> nn.Module:
    model = mlp()
    model[0].bias.requires_grad_(False)  # type: ignore[index]
    model[2].weight.requires_grad_(False)  # type: ignore[index]
    return model


class Branches(nn.Module):
    """Its second branch is used in every third pass, its third one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(INPUTS, 1) for _ in range(3))
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        out: Tensor = self.first(inputs)
        return out if self.passes % 3 else out + self.second(inputs)


class Tied(nn.Module):
    """One matrix as encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(INPUTS, INPUTS, bias=False), nn.Linear(INPUTS, INPUTS)
        self.decoder.weight = self.encoder.weight

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.decoder(torch.tanh(self.encoder(inputs)))
        return out.sum(1, keepdim=True)


class Embedded(nn.Module):
    """Its gradients are sparse, and one of its parameters is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.nothing = nn.Embedding(9, 1, sparse=True), nn.Parameter(torch.empty(0))

    def forward(self, inputs: Tensor) -> Tensor:
        rows: Tensor = self.table(inputs.argmax(1))
        return rows + self.nothing.sum()


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)


def adamw(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def fused(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def groups(model: nn.Module) -> Optimizer:
    parameters = list(model.parameters())
    second = {"params": parameters[:1], "lr": 0.03, "weight_decay": 0.0}
    return torch.optim.SGD([{"params": parameters[1:]}, second], lr=0.01, momentum=0.9, weight_decay=0.1)


def bare_sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def lbfgs(model: nn.Module) -> Optimizer:
    return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4, history_size=3)


def ordinary(model: nn.Module, optimizer: Optimizer) -> None:
    dtype = next(model.parameters()).dtype
    for inputs, targets in batches(dtype):
        loss = mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def zeroed_in_place(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        optimizer.zero_grad(set_to_none=False)
        mse_loss(model(inputs), targets).backward()
        optimizer.step()


def zeroed_by_the_model(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        model.zero_grad()
        mse_loss(model(inputs), targets).backward()
        optimizer.step()


def never_zeroed(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        mse_loss(model(inputs), targets).backward()
        optimizer.step()


def closure(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():

        def evaluate(inputs: Tensor = inputs, targets: Tensor = targets) -> float:
            optimizer.zero_grad()
            loss = mse_loss(model(inputs), targets)
            loss.backward()
            return loss  # type: ignore[return-value]

        assert optimizer.step(evaluate).item() > 0  # type: ignore[arg-type, attr-defined]


def accumulation(model: nn.Module, optimizer: Optimizer) -> None:
    for number, (inputs, targets) in enumerate(batches()):
        (mse_loss(model(inputs), targets) / 2).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()


def clipping(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        mse_loss(model(inputs), targets).backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), 0.5) > 0.5
        optimizer.step()
        optimizer.zero_grad()


def several_forwards(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        first, second = model(inputs), model(-inputs)
        (mse_loss(first, targets) + mse_loss(second, -targets)).backward()
        optimizer.step()
        optimizer.zero_grad()


def autocast(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        with torch.autocast("cpu", torch.bfloat16):
            loss = mse_loss(model(inputs).float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def scaler(model: nn.Module, optimizer: Optimizer) -> None:
    """With an overflow in the third step, which GradScaler has the optimizer skip."""
    scaling = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for number, (inputs, targets) in enumerate(batches()):
        loss = mse_loss(model(inputs), targets) * (torch.inf if number == 2 else 1)
        scaling.scale(loss).backward()
        scaling.step(optimizer)
        scaling.update()
        optimizer.zero_grad()
    assert scaling.get_scale() == 8 * 2 / 2 * 2


def scaler_and_clipping(model: nn.Module, optimizer: Optimizer) -> None:
    scaling = torch.amp.GradScaler("cpu", init_scale=3.0)
    for number, (inputs, targets) in enumerate(batches()):
        loss = mse_loss(model(inputs), targets) * (torch.nan if number == 3 else 1)
        scaling.scale(loss).backward()
        scaling.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaling.step(optimizer)
        scaling.update()
        optimizer.zero_grad()


def scheduled(make: Callable[[Optimizer], LRScheduler]) -> Loop:
    def loop(model: nn.Module, optimizer: Optimizer) -> None:
        scheduler = make(optimizer)
        for inputs, targets in batches():
            loss = mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            of: dict[str, Any] = {"metrics": 1.0} if isinstance(scheduler, ReduceLROnPlateau) else {}
            scheduler.step(**of)
        assert optimizer.param_groups[0]["lr"] != 0.01

    return loop


def evaluated_in_between(model: nn.Module, optimizer: Optimizer) -> None:
    for inputs, targets in batches():
        mse_loss(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.inference_mode():
            model(inputs)
        model.train()


def unfinished_passes(model: nn.Module, optimizer: Optimizer) -> None:
    """A training pass whose loss is thrown away, as for a bad batch."""
    for inputs, targets in batches():
        model(inputs)
        mse_loss(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()


def reloaded(model: nn.Module, optimizer: Optimizer) -> None:
    """Back to the start after a few steps, by the ordinary state dicts."""
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ordinary(model, optimizer)
    halfway = {"state": {}, "param_groups": optimizer.state_dict()["param_groups"]}
    model.load_state_dict(start)
    optimizer.load_state_dict(halfway)  # the momentum is gone, and the groups are new objects
    optimizer.param_groups[0]["lr"] = 0.02
    ordinary(model, optimizer)


@dataclass(frozen=True)
class Feature:
    loop: Loop
    model: Callable[[], nn.Module] = mlp
    optimizer: Callable[[nn.Module], Optimizer] = sgd
    dtype: torch.dtype = torch.float32

    def start(self) -> tuple[nn.Module, Optimizer]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.model().to(self.dtype)
        return model, self.optimizer(model)


FEATURES = {
    "ordinary": Feature(ordinary),
    "adamw": Feature(ordinary, optimizer=adamw),
    "fused adamw": Feature(ordinary, optimizer=fused),
    "closure": Feature(closure),
    "closure that is evaluated again": Feature(closure, optimizer=lbfgs),
    "accumulation": Feature(accumulation),
    "groups": Feature(ordinary, optimizer=groups),
    "clipping": Feature(clipping),
    "autocast": Feature(autocast),
    "scaler": Feature(scaler),
    "scaler with fused adamw": Feature(scaler, optimizer=fused),
    "scaler and clipping": Feature(scaler_and_clipping),
    "step schedule": Feature(scheduled(lambda o: StepLR(o, 2))),
    "cosine schedule": Feature(scheduled(lambda o: CosineAnnealingLR(o, 9))),
    "lambda schedule of groups": Feature(scheduled(lambda o: LambdaLR(o, lambda k: 0.9**k)), optimizer=groups),
    "one-cycle schedule, which moves the momentum": Feature(scheduled(lambda o: OneCycleLR(o, 0.05, total_steps=9))),
    "plateau schedule": Feature(scheduled(lambda o: ReduceLROnPlateau(o, patience=1))),  # type: ignore[arg-type]
    "frozen parameters": Feature(ordinary, model=frozen),
    "unused parameters": Feature(ordinary, model=Branches),
    "unused parameters, adamw": Feature(ordinary, model=Branches, optimizer=adamw),
    "unused parameters, zeroed in place": Feature(zeroed_in_place, model=Branches),
    "tied parameters": Feature(ordinary, model=Tied),
    "sparse gradients": Feature(ordinary, model=Embedded, optimizer=bare_sgd),
    "several forwards": Feature(several_forwards),
    "several forwards, some parameters unused": Feature(several_forwards, model=Branches),
    "zeroed in place": Feature(zeroed_in_place),
    "zeroed by the model": Feature(zeroed_by_the_model),
    "never zeroed": Feature(never_zeroed),
    "batch statistics": Feature(evaluated_in_between, model=normalized),
    "unfinished passes": Feature(unfinished_passes),
    "reloaded": Feature(reloaded),
    "float64": Feature(ordinary, dtype=torch.float64),
    "bfloat16": Feature(ordinary, dtype=torch.bfloat16),
}
