"""`decentral explain FILE --noise`: from how many nodes or which delay on more of either stops to pay."""

from typing import TYPE_CHECKING, Any

from decentral.cli.console import stdout

if TYPE_CHECKING:
    from decentral.training.task import Task


def noise(task: "Task") -> dict[str, Any]:
    """The estimate, as a document."""
    from decentral.measure.noise import probe

    found = probe(task)
    batch_size = sum(task.batch_sizes) / len(task.batch_sizes)
    critical = found.critical(batch_size)
    return {
        "samples": found.samples,
        "ratio": found.ratio,
        "batch_size": batch_size,
        "critical_batch": found.ratio,
        "critical_nodes": critical,
        "critical_delay_steps": critical,
    }


def print_noise(found: dict[str, Any]) -> None:
    """The same in words."""
    out, batch_size, samples = stdout(), found["batch_size"], found["samples"]
    if found["ratio"] is None:
        out.print(
            f"\nnoise at the start: the mean gradient of {samples} samples is lost in it, so the speed-up saturates at "
            f"no fewer than about {max(samples / batch_size, 1):.0f} nodes of {batch_size:g} samples each, or steps of "
            "delay (an estimate)"
        )
        return
    nodes = found["critical_nodes"]
    out.print(
        f"\nnoise at the start, M = E|g|^2 / |grad f|^2 - 1 = {found['ratio']:.3g} by {samples} samples: the speed-up "
        f"saturates at about {found['ratio']:.0f} samples a step, which is {nodes:.0f} nodes of {batch_size:g} each; "
        f"and gradients may be about {nodes:.0f} steps of {batch_size:g} samples late"
    )
    out.print(
        "  an estimate, right in its order of magnitude, for the start: later more pays (Stich, Mohtashami, Jaggi 2021)"
    )
