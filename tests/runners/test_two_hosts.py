"""A run over two hosts: the same as on one, ended by name when the link is cut, and taken up again."""

import contextlib
import re
import sys
import time
from pathlib import Path

import psutil
import pytest
from hosts import PORT, enter, two_hosts
from test_resume import same_weights, wait_for
from tiny_runs import launch_with, losses, write_config

LIMIT = 4.0
IN_TIME = LIMIT + 40  # seconds on a busy machine; without the watchdog run.dist_timeout would end a run after 60
OPTIONS = {"max_iters": 18, "iters_per_inner_epoch": 3, "hang_timeout": LIMIT}


@pytest.fixture(scope="module")
def hosts():
    with two_hosts() as found:
        yield found


def on_host(holder: int, env: dict, argv: list[str], log: str) -> None:
    enter(holder)
    launch_with(env, argv, log)


@pytest.fixture
def start_on(hosts, forkserver, tmp_path):
    """Starts rank 0 on host 0 and rank 1 on host 1, each with its own disk; logs in log.RANK."""

    def start(out: str, port: int, **run):
        processes = []
        for rank in range(2):
            disk = tmp_path / f"disk{rank}"
            disk.mkdir(exist_ok=True)
            env = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": hosts.addresses[0]}
            args = (hosts.holders[rank], {**env, "MASTER_PORT": port}, write_config(disk, out, **run))
            processes.append(forkserver.Process(target=on_host, args=(*args, str(tmp_path / f"log.{rank}"))))
            processes[-1].start()
        return processes

    return start


def end_of(processes, seconds: float = 300) -> list[int]:
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def test_two_hosts_train_as_one_does(start_on, config, run_processes, tmp_path):
    assert end_of(start_on("out", PORT, **OPTIONS)) == [0, 0], (tmp_path / "log.1").read_text()
    assert run_processes(config("whole", **OPTIONS)) == [0, 0]
    assert losses(tmp_path / "disk0" / "out") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "disk0" / "out", tmp_path / "whole")
    # the other host's disk is not needed
    assert [path.name for path in (tmp_path / "disk1" / "out").rglob("*")] == ["result"]


def test_a_cut_link_ends_both_and_a_restart_goes_on(hosts, start_on, config, run_processes, tmp_path):
    options = {**OPTIONS, "model": {"slow": 0.4, "slow_steps": [8, 18]}}  # from then on there are seconds to cut it in
    processes = start_on("out", PORT + 1, **options)
    wait_for(tmp_path / "disk0" / "out" / "log.jsonl", '"iters": 8')
    hosts.link("down")
    cut = time.monotonic()
    try:
        assert end_of(processes, IN_TIME) == [75, 75]
    finally:
        hosts.link("up")
    assert time.monotonic() - cut < IN_TIME
    lines = ["".join(re.findall(r".*error: .*", (tmp_path / f"log.{rank}").read_text())) for rank in range(2)]
    silent = re.search(rf"rank 1 \(\S+, pid {processes[1].pid}\) has not been heard of for (\d+) s", lines[0])
    assert silent and LIMIT <= int(silent[1]) < IN_TIME, lines
    assert f"rank 1: error: the meeting point of the processes, {hosts.addresses[0]}:{PORT + 1}" in lines[1]
    assert "or the link to it is gone" in lines[1]
    assert end_of(start_on("out", PORT + 2, **options)) == [0, 0], (tmp_path / "log.0").read_text()
    assert run_processes(config("whole", **OPTIONS)) == [0, 0]
    assert losses(tmp_path / "disk0" / "out") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "disk0" / "out", tmp_path / "whole")


@pytest.mark.slow  # each of its processes imports everything anew
def test_torchrun_on_two_hosts_restarts_after_a_lost_process(hosts, config, run_processes, tmp_path):
    options = {**OPTIONS, "max_iters": 40, "iters_per_inner_epoch": 5, "model": {"slow": 0.1}}
    script = str(Path(__file__).with_name("tiny_run.py"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--max-restarts=2"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-id=1", f"--rdzv-endpoint={hosts.addresses[0]}:{PORT + 3}"]
    agents = []
    for host, address in enumerate(hosts.addresses):
        # on machines with names of their own torchrun knows by itself which one the endpoint is
        own = [f"--rdzv-conf=is_host={host == 0}", f"--local-addr={address}"]
        command = [*torchrun, *own, script, *config(**options)]
        with open(tmp_path / f"log.{host}", "w") as log:
            agents.append(psutil.Popen(hosts.inside(host, *command), stdout=log, stderr=log))
    try:
        wait_for(tmp_path / "out" / "log.jsonl", '"iters": 12', 300)
        agents[1].children()[0].kill()
        assert [agent.wait(300) for agent in agents] == [0, 0], (tmp_path / "log.0").read_text()[-3000:]
    finally:
        for agent in agents:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [*agent.children(recursive=True), agent]:
                    process.kill()
    assert "going on after step 10" in (tmp_path / "log.0").read_text()
    assert run_processes(config("whole", **options)) == [0, 0]
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
