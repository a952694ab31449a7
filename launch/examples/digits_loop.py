"""Handwritten digits by gossip, in an ordinary PyTorch loop. Run it alone, or as any number of ranks:

python digits_loop.py
torchrun --nproc-per-node 4 digits_loop.py
mpirun -n 4 python digits_loop.py --topology exponential --order adapt-while-communicate
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import decentral


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = (model(inputs).argmax(1) == targets).double().mean().item()
    model.train()
    return 100 * right


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--topology", default="ring")
    parser.add_argument("--order", default="adapt-then-combine")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    decentral.init()
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)
    test, train = slice(0, 357), slice(357 + decentral.rank(), None, decentral.size())  # every rank has its own samples
    samples = TensorDataset(inputs[train], targets[train])
    rounds = 1440 // decentral.size() // 32  # the same number on every rank: a round needs all neighbors

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    algorithm = {"name": "dsgd", "order": options.order}
    model, optimizer = decentral.wrap(model, optimizer, algorithm=algorithm, topology=options.topology)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)

    torch.manual_seed(decentral.rank())
    for _ in range(options.epochs):
        loader = DataLoader(samples, batch_size=32, shuffle=True, drop_last=True)
        for _, (batch, labels) in zip(range(rounds), loader, strict=False):
            loss = cross_entropy(model(batch), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()

    own = accuracy(model, inputs[test], targets[test])
    with decentral.evaluate_averaged(model):
        together = accuracy(model, inputs[test], targets[test])
    print(f"rank {decentral.rank()} of {decentral.size()}: own {own:.1f} %, average {together:.1f} %", flush=True)
    decentral.shutdown()


if __name__ == "__main__":
    main()
