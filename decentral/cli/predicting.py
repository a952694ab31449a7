"""`decentral explain FILE --link RATE`: the step time of each method, by the cost model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from decentral.cli.console import stdout
from decentral.cli.quantities import duration, rate
from decentral.config import Experiment
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.measure.cost import Machine, Prediction, Setting
    from decentral.measure.prepared import Prepared

NO_LINK = "none"


@dataclass(frozen=True)
class Asked:
    """What a prediction is asked for.

    Args:
        rate_bit_s: of each host's link; None where all nodes are on this host.
        latency_s: one way.
        compute_s: of a step without communication; None: to be measured here.
    """

    rate_bit_s: float | None
    latency_s: float
    compute_s: float | None


def asked(link: str | None, latency: str | None, compute: str | None) -> Asked | None:
    """What the options ask for; None where they ask for no prediction.

    Raises:
        ConfigError: nonsense, or options that do not fit each other.
    """
    if link is None:
        given = [name for name, value in (("--latency", latency), ("--compute", compute)) if value is not None]
        if given:
            raise ConfigError(f"{' '.join(given)} given without --link RATE, for which step times are predicted")
        return None
    if link == NO_LINK and latency is not None:
        raise ConfigError("--latency with --link none, where all nodes are on one host; give a rate, such as 1gbit")
    return Asked(
        None if link == NO_LINK else rate("--link", link),
        0.0 if latency is None else duration("--latency", latency, zero=True),
        None if compute is None else duration("--compute", compute),
    )


def prediction(asked: Asked, experiment: Experiment, ready: "Sequence[Prepared]") -> dict[str, Any]:
    """The step of each method, as a document; the machine is measured for a moment."""
    import torch

    from decentral.measure.cost import Link, Setting
    from decentral.measure.plan import predicted
    from decentral.measure.probes import cores, step_seconds, this_machine

    here = experiment.nodes if asked.rate_bit_s is None else 1  # ranks on this machine
    model_bytes = ready[0].meta().nbytes
    torch.set_num_threads(experiment.threads)
    machine = this_machine(here, experiment.threads, model_bytes, alone=True)
    crowding = max(here * experiment.threads / cores(), 1.0)
    compute_s = step_seconds(ready[0]) * crowding if asked.compute_s is None else asked.compute_s
    link = None if asked.rate_bit_s is None else Link(asked.rate_bit_s, asked.latency_s)
    shares_memory = experiment.transport.name in ("auto", "shared-memory")
    setting = Setting(experiment.nodes, model_bytes, compute_s, machine, link, shares_memory)
    costs = {method.label: predicted(method, setting) for method in ready}
    ddp = next((costs[method.label] for method in ready if method.algorithm is None), None)
    return {
        "nodes": experiment.nodes,
        "link": None if link is None else asdict(link),
        "machine": asdict(machine),
        "assumed": _assumed(asked, setting, crowding, experiment.threads),
        "methods": [_row(method, costs[method.label], ddp) for method in ready],
    }


def _assumed(asked: Asked, setting: "Setting", crowding: float, threads: int) -> list[str]:
    """What the numbers rest on, in sentences."""
    where = (
        f"all {setting.nodes} ranks on this host, neighbors in shared memory"
        if setting.link is None and setting.shares_memory
        else f"all {setting.nodes} ranks on this host, over loopback"
        if setting.link is None
        else "one rank per host, each like this machine"
    )
    if asked.compute_s is not None:
        computed = f"a step computes for {_ms(setting.compute_s)}, as --compute says"
    else:
        computed = (
            f"a step computes for {_ms(setting.compute_s)}: measured here with {threads} thread{'s' * (threads > 1)}"
        )
        computed += f", times {crowding:g} since the ranks share its cores" if crowding > 1 else ", one rank alone"
    return [where, computed, _rates(setting.machine)]


def _rates(machine: "Machine") -> str:
    spare = "a core to spare" if machine.spare_core else "no core to spare"
    return (
        f"a rank reads and writes {machine.memory_bytes_s / 1e9:.1f} GB/s of memory and copies "
        f"{machine.loopback_bytes_s / 1e9:.1f} GB/s through a socket, with {spare}: measured here"
    )


def _row(method: "Prepared", cost: "Prediction", ddp: "Prediction | None") -> dict[str, Any]:
    from decentral.measure.plan import bytes_per_round

    return {
        "name": method.label,
        "bytes_per_round_busiest_node": bytes_per_round(method, method.busiest),
        **asdict(cost),
        "communication_s": cost.communication_s,
        "step_s": cost.step_s,
        "efficiency": cost.efficiency,
        "over_ddp": None if ddp is None else cost.step_s / ddp.step_s,
    }


def print_prediction(document: dict[str, Any]) -> None:
    """The table, under a line that says link and n."""
    from decentral.measure.tables import in_bytes, said

    out, link = stdout(), document["link"]
    where = " on one host"
    if link is not None:
        where = f", {link['rate_bit_s'] / 1e6:g} Mbit/s each way, {_ms(link['latency_s'])} one way"
    out.print(f"\npredicted step of {document['nodes']} nodes{where}:")
    table = Table(box=None, header_style="bold")
    table.add_column("method")
    for column in ("sent per round", "compute", "communication", "of it hidden", "step", "efficiency", "over DDP"):
        table.add_column(column, justify="right")
    for row in document["methods"]:
        table.add_row(
            row["name"],
            said(in_bytes, row["bytes_per_round_busiest_node"]),
            *(_ms(row[key]) for key in ("compute_s", "communication_s", "hidden_s", "step_s")),
            f"{row['efficiency']:.2f}",
            "-" if row["over_ddp"] is None else f"{row['over_ddp']:.2f}x",
        )
    out.print(table)
    for sentence in document["assumed"]:
        out.print(f"  {sentence}", markup=False)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms"
