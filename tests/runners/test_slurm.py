"""Runs that SLURM starts, without torchrun: the variables that srun gives its tasks, in real processes."""

import itertools
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_runs import launch_with, losses

from lavis_evlgen.runners.meeting import SLURM_PORTS, interface_towards, set_meeting_point, slurm_master, slurm_port
from lavis_evlgen.runners.placement import Placement

SCRIPT = Path(__file__).parents[2] / "projects" / "evlgen" / "slurm.sbatch"


def srun(job: int, task: int, tasks: int = 2) -> dict[str, object]:
    """What the tasks of ``srun --ntasks=2`` on two machines find in their environment, as far as we read it."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_ID": 0,
        "SLURM_PROCID": task,
        "SLURM_LOCALID": 0,
        "SLURM_NTASKS": tasks,
        "SLURM_JOB_NODELIST": "other[1-4]",  # the job's, of which the step has these
        "SLURM_STEP_NODELIST": "127.0.0.[1-2]",
    }


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[03-06,9],cpu1", "gpu03"),
        ("a-1,a-2", "a-1"),
        ("r[1-2]n[4,7],r9n1", "r1n4"),
        ("node7.cluster", "node7.cluster"),
        ("10.0.0.[12-13]", "10.0.0.12"),
    ],
)
def test_first_machine_of_a_node_list(nodes, first):
    assert slurm_master({"SLURM_JOB_NODELIST": nodes}) == first
    assert slurm_master({"SLURM_JOB_NODELIST": "x[5-6]", "SLURM_STEP_NODELIST": nodes}) == first


def test_ports_of_neighbouring_jobs_and_steps_differ():
    ports = {
        slurm_port({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        for job in range(4_000_000, 4_000_500)
        for step in range(4)
    }
    assert len(ports) == 2000 and min(ports) >= 15000 and max(ports) < 30000
    assert slurm_port({"SLURM_JOB_ID": "15007"}) == SLURM_PORTS[7] == 15007
    assert slurm_port({}) == slurm_port({"SLURM_JOB_ID": "x"}) == 29500


def test_what_others_have_set_stays():
    env = {"MASTER_ADDR": "host", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2", "SLURM_JOB_ID": "9"}
    set_meeting_point(Placement(0, 0, 1), "nccl", env)
    assert env == {"MASTER_ADDR": "host", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2", "SLURM_JOB_ID": "9"}
    env = {"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "127.0.0.[1,5]"}
    set_meeting_point(Placement(1, 1, 4), "gloo", env)
    assert env == {
        "SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "127.0.0.[1,5]",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "15009", "RANK": "1", "WORLD_SIZE": "4",
    }  # fmt: skip
    assert interface_towards("127.0.0.1") is None and interface_towards("no.such.host.invalid") is None


def jobs_with_free_ports(count: int) -> list[int]:
    """Numbers of jobs whose ports nobody here uses; another run of the tests looks elsewhere."""
    found = []
    for job in itertools.count(os.getpid() * 10):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", slurm_port({"SLURM_JOB_ID": str(job)}))) != 0:
                found.append(job)
        if len(found) == count:
            return found


def test_two_jobs_of_two_tasks_beside_each_other(config, forkserver, run_processes, tmp_path):
    started, jobs = [], jobs_with_free_ports(2)
    for job in jobs:
        argv = config(f"job{job}")
        for task in range(2):
            args = (srun(job, task), argv, str(tmp_path / f"log.{job}.{task}"))
            started.append(forkserver.Process(target=launch_with, args=args))
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    logs = "\n".join(path.read_text()[-2000:] for path in tmp_path.glob("log.*"))
    assert [process.exitcode for process in started] == [0, 0, 0, 0], logs
    assert run_processes(config("torchrun")) == [0, 0]
    assert len(losses(tmp_path / "torchrun")) == 12
    for job in jobs:
        assert losses(tmp_path / f"job{job}") == losses(tmp_path / "torchrun")
        state = torch.load(tmp_path / f"job{job}" / "checkpoint_12.pth", weights_only=True)
        assert len(state["rng"]) == 2


def test_the_example_script(tmp_path):
    text = SCRIPT.read_text()
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    (srun_line,) = re.findall(r"^srun .*", text, re.M)
    assert re.search(r"python -m lavis_evlgen.train --cfg-path (\S+)", srun_line)
    assert (SCRIPT.parents[2] / re.search(r"--cfg-path (\S+)", srun_line)[1]).is_file()
    tasks, gpus = (
        int(re.search(rf"^#SBATCH --{key}=(\d+)", text, re.M)[1]) for key in ("ntasks-per-node", "gpus-per-node")
    )
    assert tasks == gpus  # one process a GPU
    assert "--signal=USR1@" in text  # the runner saves and leaves before the time is over
