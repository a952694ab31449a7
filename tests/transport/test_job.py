"""What the templates become: scripts whose every word arrives as it was meant, and manifests of the right kind."""

import os
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from decentral.errors import ConfigError
from decentral.shipped import shipped
from decentral.transport.job import LAUNCHERS, _environment, launcher_named, literal_yaml
from tests.transport.rendering import (
    EXPERIMENT,
    HERE,
    ODD_FILE,
    ODD_OVERRIDES,
    calls,
    expanded,
    job,
    manifests,
    rendered,
    run,
    script_of,
    stubs,
)

TEMPLATES = sorted(path.name for path in (shipped("launch") / "templates").iterdir())
PARTS = {"parts.j2", "sbatch.j2"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_sound_and_used(template: str) -> None:
    assert _environment().get_template(template)
    assert template in PARTS or any(template in launcher.files for launcher in LAUNCHERS.values())


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_script_is_one_that_bash_reads(tmp_path: Path, launcher: str) -> None:
    for hosts in (1, 2):
        script = script_of(launcher, rendered(tmp_path, launcher, ranks_per_host=4 // hosts))
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
        assert script.endswith("\n")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_word_arrives_as_it_was_meant(tmp_path: Path, launcher: str) -> None:
    """File names and overrides are the user's: a space, a quote or a `$(...)` in them is a letter like any other."""
    made = job(tmp_path, launcher)
    called = calls(tmp_path, launcher, rendered(tmp_path, launcher))
    words = next(called[name] for name in ("torchrun", "mpirun", "srun") if name in called)
    train = words[words.index("train") :]
    overrides = [word for override in ODD_OVERRIDES for word in ("-s", override)]
    assert train == ["train", made.file, *overrides, "--out", "runs/a run"]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_that_was_begun_is_resumed(tmp_path: Path, launcher: str) -> None:
    """`--out` takes an empty folder and refuses another; so does the script's question."""
    result = rendered(tmp_path, launcher)
    (tmp_path / "runs" / "a run").mkdir(parents=True)
    for content, expected in (None, "--out"), ("started.json", "--resume"):
        if content:
            (tmp_path / "runs" / "a run" / content).touch()
        called = calls(tmp_path, launcher, result)
        words = next(called[name] for name in ("torchrun", "mpirun", "srun") if name in called)
        assert words[-2:] == [expected, "runs/a run"]


@pytest.mark.parametrize("launcher", ["torchrun", "slurm-torchrun", "kubernetes", "skypilot"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_the_installed_torchrun_knows_every_option(tmp_path: Path, launcher: str, hosts: int) -> None:
    called = calls(tmp_path, launcher, rendered(tmp_path, launcher, ranks_per_host=4 // hosts))
    words = called["srun"][1:] if "srun" in called else called["torchrun"]
    parsed = get_args_parser().parse_args(words)
    assert (parsed.nproc_per_node, parsed.module, parsed.training_script) == (str(4 // hosts), True, "decentral")
    assert parsed.training_script_args[0] == "train"
    assert parsed.standalone or parsed.nnodes == str(hosts)
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["--no-such-option", *words])


def test_where_the_hosts_of_each_torchrun_meet(tmp_path: Path) -> None:
    def parsed(launcher: str, **more: Any) -> Any:
        called = calls(tmp_path, launcher, rendered(tmp_path, launcher, **more))
        return get_args_parser().parse_args(called["srun"][1:] if "srun" in called else called["torchrun"])

    assert parsed("torchrun").rdzv_endpoint == "first-host:29400"
    assert parsed("torchrun", host_names=("n1", "n2")).rdzv_endpoint == "n1:29400"
    assert parsed("slurm-torchrun").rdzv_endpoint == "first-host:23456"
    sky = parsed("skypilot")
    assert (sky.master_addr, sky.node_rank, sky.nnodes) == ("10.0.0.1", 1, "2")


def test_torchrun_on_many_hosts_asks_for_the_first(tmp_path: Path) -> None:
    result = rendered(tmp_path, "torchrun")
    assert result.submit == "bash 'job torchrun.sh' FIRST_HOST"
    done = run(tmp_path / "job torchrun.sh", stubs(tmp_path / "bin"), SAID=str(tmp_path / "said"))
    assert done.returncode != 0
    assert "give the name of the first host" in done.stderr
    assert rendered(tmp_path, "torchrun", host_names=("a", "b")).submit == "bash 'job torchrun.sh'"


SRUN_DIRECTIVES = {"nodes": "2", "ntasks": "4", "ntasks-per-node": "2", "cpus-per-task": "3"}
TORCHRUN_DIRECTIVES = {"nodes": "2", "ntasks": "2", "ntasks-per-node": "1", "cpus-per-task": "6"}


@pytest.mark.parametrize(
    ("launcher", "expected"), [("slurm-srun", SRUN_DIRECTIVES), ("slurm-torchrun", TORCHRUN_DIRECTIVES)]
)
def test_what_is_asked_of_slurm(tmp_path: Path, launcher: str, expected: Mapping[str, str]) -> None:
    """Slurm reads `#SBATCH` lines only before the first command."""
    text = next(iter(rendered(tmp_path, launcher, partition="gpu,long", time="1-12:00:00").files.values()))
    head, _, body = text.partition("set -euo pipefail")
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", head, re.MULTILINE))
    assert expected.items() <= found.items()
    assert {"partition": "gpu,long", "time": "1-12:00:00", "signal": "USR1@120"}.items() <= found.items()
    assert "#SBATCH --requeue\n" in head
    assert "#SBATCH" not in body
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "partition" not in next(iter(rendered(tmp_path, launcher).files.values()))


def test_a_train_job(tmp_path: Path) -> None:
    (document,) = manifests(rendered(tmp_path, "kubernetes"))
    assert (document["apiVersion"], document["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert document["metadata"]["name"] == "ring-1"
    trainer = document["spec"]["trainer"]
    assert document["spec"]["runtimeRef"] == {"name": "torch-distributed"}
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    assert trainer["image"] == "registry.example.org/me/train:1"
    assert trainer["resourcesPerNode"]["requests"]["cpu"] == 6
    assert trainer["command"] == ["bash", "-c"]
    (variable,) = trainer["env"]
    assert variable["name"] == "EXPERIMENT"
    assert expanded(variable["value"]) == EXPERIMENT


def test_a_train_job_brings_its_experiment(tmp_path: Path) -> None:
    calls(tmp_path, "kubernetes", rendered(tmp_path, "kubernetes"))
    assert (tmp_path / "ring-1.yaml").read_text() == EXPERIMENT


def test_an_mpi_job(tmp_path: Path) -> None:
    experiment, document = manifests(rendered(tmp_path, "kubernetes-mpi", claim="my-runs"))
    assert (experiment["apiVersion"], experiment["kind"]) == ("v1", "ConfigMap")
    assert experiment["data"] == {"experiment.yaml": EXPERIMENT}
    assert (document["apiVersion"], document["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    spec = document["spec"]
    assert (spec["slotsPerWorker"], spec["mpiImplementation"]) == (2, "OpenMPI")
    replicas = spec["mpiReplicaSpecs"]
    assert {kind: replica["replicas"] for kind, replica in replicas.items()} == {"Launcher": 1, "Worker": 2}
    for replica in replicas.values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert {volume["name"] for volume in pod["volumes"]} == {"experiment", "runs"}
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["experiment"]["mountPath"] == f"{tmp_path}/ring-1.yaml"
        assert mounts["experiment"]["subPath"] == "experiment.yaml"
        assert mounts["runs"]["mountPath"] == f"{tmp_path}/runs"
        assert pod["volumes"][0]["configMap"]["name"] == experiment["metadata"]["name"]
        assert pod["volumes"][1]["persistentVolumeClaim"]["claimName"] == "my-runs"
    assert replicas["Worker"]["template"]["spec"]["containers"][0]["command"] == ["/usr/sbin/sshd", "-De"]


def test_a_sky_task(tmp_path: Path) -> None:
    result = rendered(tmp_path, "skypilot", image="me/train:1")
    (document,) = manifests(result)
    assert (document["name"], document["num_nodes"]) == ("ring-1", 2)
    assert document["resources"] == {"cpus": "6+", "image_id": "docker:me/train:1"}
    assert document["workdir"] == str(tmp_path)
    assert result.submit == "sky launch -c ring-1 'job skypilot.yaml'"
    with pytest.raises(ConfigError, match="all that SkyPilot carries to its hosts"):
        rendered(tmp_path, "skypilot", file="../ring.yaml")


@pytest.mark.parametrize("launcher", ["mpirun", "kubernetes-mpi"])
def test_open_mpi_runs_as_root_only_where_asked(tmp_path: Path, launcher: str) -> None:
    setting = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    assert setting not in script_of(launcher, rendered(tmp_path, launcher))
    assert setting in script_of(launcher, rendered(tmp_path, launcher, as_root=True))


def test_a_hostfile(tmp_path: Path) -> None:
    files = rendered(tmp_path, "mpirun", host_names=("n1", "n2")).files
    assert files["job mpirun.hostfile"] == "n1 slots=2\nn2 slots=2\n"
    assert rendered(tmp_path, "mpirun", ranks_per_host=4).files["job mpirun.hostfile"] == "localhost slots=4\n"
    assert "Put your hosts' names here" in rendered(tmp_path, "mpirun").files["job mpirun.hostfile"]


@pytest.mark.processes
@pytest.mark.skipif(not (HERE / "mpirun").exists(), reason="no mpirun beside this Python")
def test_the_installed_mpirun_knows_every_option_and_starts_all_ranks(tmp_path: Path) -> None:
    """A real mpirun, on a program in decentral's place that says which rank it is."""
    rendered(tmp_path, "mpirun", ranks_per_host=4, as_root=os.geteuid() == 0)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "decentral"
    program.write_text('#!/bin/sh\necho "$OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE, $OMP_NUM_THREADS, $1 $2"\n')
    program.chmod(stat.S_IRWXU)
    done = run(tmp_path / "job mpirun.sh", tmp_path / "bin")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"{rank} of 4, 3, train {ODD_FILE}" for rank in range(4)]
    broken = tmp_path / "broken.sh"
    broken.write_text((tmp_path / "job mpirun.sh").read_text().replace("--bind-to", "--bynd-to"))
    assert "--bynd-to" in (refused := run(broken, tmp_path / "bin")).stderr
    assert refused.returncode != 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"ranks_per_host": 3}, "4 nodes cannot be spread evenly at 3 ranks per host; use --ranks-per-host 2"),
        ({"ranks_per_host": 8}, "use --ranks-per-host 4"),
        ({"host_names": ("a", "b", "c")}, "--hosts names 3 hosts; 4 nodes at 2 ranks per host need 2"),
        ({"host_names": ("a", "b;c")}, "found 'b;c'; required: host names with commas between them"),
        ({"host_names": ("a", "-oProxyCommand=x")}, "required: host names"),
        ({"overrides": ("x=a\nb",)}, "must be printable text on one line"),
        ({"file": "a\u2028b.yaml"}, "must be printable"),
        ({"setup": "a\tb"}, "must be printable"),
    ],
)
def test_what_has_no_safe_place_in_a_script_is_refused(tmp_path: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, **more)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("launcher", "more", "told"),
    [
        ("torchrun", {"partition": "gpu"}, "has no use for --partition; it is for slurm-srun, slurm-torchrun"),
        ("slurm-srun", {"image": "x"}, "has no use for --image; it is for kubernetes, kubernetes-mpi, skypilot"),
        ("slurm-srun", {"time": "soon"}, "found 'soon'; required: Slurm's form of a time"),
        ("slurm-srun", {"partition": "a b"}, "found 'a b'; required: a partition"),
        ("kubernetes", {"image": ""}, "needs --image: a container image"),
        ("kubernetes", {"image": "a b"}, "found 'a b'; required: a container image"),
        ("kubernetes", {"claim": "c"}, "has no use for --claim; it is for kubernetes-mpi"),
        ("kubernetes", {"workdir": "relative"}, "an absolute path without spaces"),
        ("skypilot", {"as_root": True}, "has no use for --as-root; it is for mpirun, kubernetes-mpi"),
        ("skypilot", {"host_names": ("a", "b")}, "has no use for --hosts; it is for torchrun, mpirun"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    tmp_path: Path, launcher: str, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        rendered(tmp_path, launcher, **more)
    assert told in str(caught.value)


def test_names_of_launchers() -> None:
    assert launcher_named("slurm") == "slurm-torchrun"
    assert launcher_named("mpirun") == "mpirun"
    with pytest.raises(ConfigError, match="--with mpiron: no such launcher; did you mean 'mpirun'"):
        launcher_named("mpiron")


@pytest.mark.parametrize(
    ("name", "label"),
    [("Ring_1.b", "ring-1-b"), ("8nodes", "run-8nodes"), ("a" * 64, "a" * 50), ("a" * 49 + "-b", "a" * 49)],
)
def test_a_name_in_kubernetes_form(tmp_path: Path, name: str, label: str) -> None:
    assert job(tmp_path, name=name).label == label


@pytest.mark.parametrize("text", [EXPERIMENT, "a", "", " a\n", "a\n\n", "a: 'é' # 😀\n", "tab\t\n", "\u2028"])
def test_a_text_survives_yaml(text: str) -> None:
    indented = "x:\n  y: " + literal_yaml(text).replace("\n", "\n    ") + "\n"
    assert yaml.safe_load(indented) == {"x": {"y": text}}
