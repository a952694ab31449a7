"""How long the clock simulator takes for a thousand nodes of about a hundred steps each, with an event log.

`python -m tests.contract.free_run_seconds`; minutes, so no test. A linear model of 20 numbers on a torus, log-normal
times, one node in ten ten times slower. A line for each method: processor seconds of this process, which has one
thread, seconds of the wall, lines of the log, and steps of the mean node.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import torch

from decentral.algorithms import ASYNCHRONOUS_METHODS
from decentral.measure.run import simulate
from tests.contract.test_experiment import prepared

EXPERIMENT: dict[str, Any] = {
    "data": {"name": "quadratics", "dimension": 20},
    "model": {"name": "linear", "bias": False},
    "topology": "torus",
    "optimizer": {"lr": 0.05},
    "diagnostics": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100, help="of a node of mean speed")
    parser.add_argument("--algorithm", nargs="*", default=["swift", "ad-psgd", "async-gradient-push", "dsgd"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    speeds = [0.1 if node % 10 == 0 else 0.01 for node in range(asked.nodes)]
    clock = {"gradient_s": speeds, "varies": {"name": "log-normal"}, "log": True}
    run = {"nodes": asked.nodes, "rounds": asked.steps, "evaluate_every": asked.steps}
    span = {"duration_s": 0.01 * asked.steps, "evaluate_every_s": 0.01 * asked.steps}
    for algorithm in asked.algorithm:
        timed = {"clock": clock} | (span if algorithm in ASYNCHRONOUS_METHODS else {})
        with TemporaryDirectory() as folder:
            ready, _ = prepared(Path(folder), EXPERIMENT, run, timed, {"algorithm": algorithm})
            seen: list[Any] = []
            began, cpu = perf_counter(), process_time()
            simulate(ready, seen.append, folder=Path(folder))
            cpu_s, wall_s = process_time() - cpu, perf_counter() - began
            events = (Path(folder) / "events.jsonl").read_bytes().count(b"\n")
        took = f"{cpu_s:6.1f} s CPU {wall_s:6.1f} s wall {events:8} events"
        print(f"{algorithm:20} {took}, {seen[-1].round} steps", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
