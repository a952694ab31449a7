"""What a method will cost before it runs: bytes and seconds per round, memory per node, and how to launch it."""

from dataclasses import fields, is_dataclass

import torch

from decentral.algorithms.ad_psgd import ADPSGD
from decentral.algorithms.local import LocalOptimizer
from decentral.measure import itinerary
from decentral.measure.cost import Prediction, Setting, predict, predict_ddp
from decentral.measure.prepared import DRY_ROUNDS, Prepared
from decentral.transport.driver import all_reduce_bytes
from decentral.transport.frames import HEADER_BYTES, payload_bytes

WATCHED = 16
"""Nodes whose dry runs a prediction takes time for."""

TURNS = 200
"""Of a schedule, those that tell how often a node of a pair is asked."""


def bytes_per_round(prepared: Prepared, node: int) -> float:
    """Bytes that a node sends in a round, headers included: the mean over a dry run of up to 2000 rounds.

    Of an asynchronous method, in a step of its own, where nodes are equally fast.
    """
    if prepared.algorithm is None:
        return float(all_reduce_bytes(prepared.meta(), prepared.nodes))
    if itinerary.walks(prepared):
        return itinerary.bytes_per_round(prepared)[node]
    if isinstance(prepared.algorithm, ADPSGD):
        return _bytes_of_pairs(prepared.algorithm, prepared, node)
    return prepared.dry_run(node).bytes_sent / min(prepared.pace.rounds, DRY_ROUNDS)


def _bytes_of_pairs(algorithm: ADPSGD, prepared: Prepared, node: int) -> float:
    """Bytes of a request and of the replies that a node gives, in the mean, where each node asks in every step: a
    neighbor with k of its own asks it in every k-th."""
    topology = prepared.topology
    assert topology is not None
    kinds = algorithm.init(prepared.meta(), prepared.peer(node)).kinds()
    request, reply = (HEADER_BYTES + payload_bytes(kind) for kind in kinds)
    turns = min(topology.schedule.period or TURNS, TURNS)
    rows = [topology.row(node, turn) for turn in range(turns)]
    asks = sum(1 for row in rows if row.to)
    asked = sum(1 / len(topology.row(j, turn).to) for turn, row in enumerate(rows) for j in row.sources)
    return (asks * request + asked * reply) / turns


def predicted(prepared: Prepared, setting: Setting) -> Prediction:
    """The time of a step: of the slowest node in each round where there are up to WATCHED, else of the busiest one."""
    if prepared.algorithm is None:
        size = prepared.task.dtype.itemsize
        return predict_ddp([torch.Size(block.shape).numel() * size for block in prepared.task.layout], setting)
    if itinerary.walks(prepared):
        return predict([itinerary.itinerary(prepared)], setting)
    watched = range(prepared.nodes) if prepared.nodes <= WATCHED else [prepared.busiest]
    return predict((prepared.dry_run(node).rounds for node in watched), setting)


def memory_bytes(prepared: Prepared, node: int) -> dict[str, int]:
    """Memory of a node by purpose, in bytes; what the forward pass keeps is not known before it runs."""
    vector = prepared.task.parameters * prepared.task.dtype.itemsize
    held = prepared.task.shards[node]
    samples = sum(t[held[:1]].nbytes for t in (prepared.task.data.train_inputs, prepared.task.data.train_targets))
    degree = len(prepared.topology.neighbors(node)) if prepared.topology else 0
    algorithm, frame = _carried_and_sent(prepared, node)
    return {
        "model": vector,
        "gradient": vector,
        "optimizer": round(_optimizer_vectors(prepared.local) * vector),
        "algorithm": algorithm,
        "messages": (degree + 1) * frame if degree else vector,
        "samples": samples * len(held),
    }


def _carried_and_sent(prepared: Prepared, node: int) -> tuple[int, int]:
    """Bytes of what the algorithm's State holds beside the model and the local optimizer, once every edge has been in
    use; and of the largest message."""
    if prepared.algorithm is None:
        return 0, 0
    if itinerary.walks(prepared):
        parts, largest = itinerary.carried_and_sent(prepared, node)
        return sum(map(_held, parts)), largest
    did, state = prepared.dry_state(node)
    parts = [getattr(state, field.name) for field in fields(state) if field.name not in ("x", "local")]
    return sum(map(_held, parts)), did.largest_frame


def _held(value: object) -> int:
    """Bytes of all tensors in a part of a State."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_held, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_held, value))
    if is_dataclass(value):
        return sum(_held(getattr(value, field.name)) for field in fields(value))
    return 0


def _optimizer_vectors(local: LocalOptimizer) -> float:
    """Numbers of optimizer state per parameter, found by one step on a few."""
    parameter = torch.nn.Parameter(torch.zeros(8, 8))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = local.factory([parameter], **local.options)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() for tensor in kept if tensor.numel() > 1) / parameter.numel()


def launch_commands(file: str, nodes: int) -> list[str]:
    """How to start the experiment: on one machine, on several, under MPI, and on a cluster by a script made for it."""
    return [
        f"decentral train {file} --nproc {nodes}",
        f"torchrun --nnodes {nodes} --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint FIRST_HOST:29400 "
        f"-m decentral train {file}",
        f"mpirun -n {nodes} --hostfile HOSTS --bind-to none decentral train {file}",
        f"decentral launch {file} --with slurm  # or mpirun, kubernetes, ...: see --help",
    ]
