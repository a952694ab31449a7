"""Jobs with odd names, what they render to, and what the rendered scripts call when they run."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from decentral.transport.job import LAUNCHERS, Job, Rendered, render

HERE = Path(sys.executable).parent
"""Where the installed torchrun and mpirun are, on the PATH or not."""
ODD_FILE = "a $(touch pwned) 'b\" \\;é &.yaml"
ODD_OVERRIDES = ("topology={name: './my graph.py', hub: 2}", "name=$HOME", "x='\"$$(y)`z`\\", "y=$(A)$$$(B)", "-z=* ~")
CONTAINERS = ("kubernetes", "kubernetes-mpi")
EXPERIMENT = "# $(PATH) $$ é\nnodes: 4\n\n  odd: 'x'\t# end \n"
STUB = """#!/usr/bin/env python3
import os, pathlib, sys
with pathlib.Path(os.environ["SAID"]).open("ab") as file:
    file.write("\\0".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode() + b"\\0\\n")
if os.path.basename(sys.argv[0]) == "scontrol":
    print("first-host\\nsecond-host")
"""


def job(tmp_path: Path, launcher: str = "torchrun", **more: Any) -> Job:
    needed = {"image": "registry.example.org/me/train:1"} if launcher in CONTAINERS else {}
    usual: dict[str, Any] = {
        "name": "ring-1",
        "file": "ring-1.yaml" if launcher in CONTAINERS else ODD_FILE,
        "text": EXPERIMENT,
        "overrides": ODD_OVERRIDES,
        "nodes": 4,
        "ranks_per_host": 2,
        "threads": 3,
        "folder": "runs/a run",
        "here": str(tmp_path),
    }
    if launcher in CONTAINERS:
        usual["workdir"] = str(tmp_path)
    return Job(**(usual | needed | more))


def rendered(tmp_path: Path, launcher: str, **more: Any) -> Rendered:
    name = next(iter(LAUNCHERS[launcher].files.values()))
    result = render(launcher, job(tmp_path, launcher, **more), f"job {name}")
    for file, text in result.files.items():
        (tmp_path / file).write_text(text)
    return result


def expanded(text: str) -> str:
    """As Kubernetes expands arguments and variables where none is defined: `$$` is `$`, `$(NAME)` stays."""
    return re.sub(r"\$\$", "$", text)


def manifests(result: Rendered) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(next(iter(result.files.values()))))


def script_of(launcher: str, result: Rendered) -> str:
    """The shell script that a launcher's file is or holds."""
    text = next(iter(result.files.values()))
    if launcher == "kubernetes":
        return expanded(manifests(result)[0]["spec"]["trainer"]["args"][0])
    if launcher == "kubernetes-mpi":
        pod = manifests(result)[1]["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
        return expanded(pod["containers"][0]["args"][0])
    return str(manifests(result)[0]["run"]) if launcher == "skypilot" else text


def stubs(folder: Path) -> Path:
    """Programs that only note how they were called."""
    folder.mkdir()
    for name in ("torchrun", "mpirun", "srun", "scontrol", "decentral"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(stat.S_IRWXU)
    return folder


def run(script: Path, path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    where = {"PATH": os.pathsep.join([str(path), str(HERE), os.environ["PATH"]])} | environment
    return subprocess.run(
        ["bash", str(script), *arguments],
        env=dict(os.environ) | where,
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )


def calls(tmp_path: Path, launcher: str, result: Rendered) -> dict[str, list[str]]:
    """The programs that a rendered script calls, each with its arguments."""
    script = tmp_path / "as run.sh"
    script.write_text(script_of(launcher, result))
    (tmp_path / "said").unlink(missing_ok=True)
    path = tmp_path / "bin" if (tmp_path / "bin").exists() else stubs(tmp_path / "bin")
    told = {"SAID": str(tmp_path / "said"), "EXPERIMENT": EXPERIMENT, "SLURM_JOB_NODELIST": "h[1-2]"}
    told |= {"SLURM_JOB_ID": "123456", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    done = run(script, path, "first-host", **told)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "said").read_bytes().decode().split("\0\n")[:-1]
    return {name: rest for name, *rest in (line.split("\0") for line in lines)}
