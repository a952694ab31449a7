"""Programs under the mpirun that the `mpi` extra brings."""

import os
import subprocess
import sys
from pathlib import Path

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
MPIRUN = str(Path(sys.executable).parent / "mpirun")


def command(ranks: int, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """`python ARGUMENTS` as ranks of this machine, more of them than it has cores."""
    return [MPIRUN, "--oversubscribe", "--bind-to", "none", *options, "-n", str(ranks), sys.executable, *arguments]


def environment() -> dict[str, str]:
    """Of a process that no launcher started."""
    launchers = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "TORCHELASTIC_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    return {**clean, **AS_ROOT, "OMP_NUM_THREADS": "1"}


def mpirun(ranks: int, folder: Path, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(ranks, *arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
