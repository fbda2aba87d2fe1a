"""A rank that dies, stops or hangs ends the job in time, named by the others; the job then goes on exactly."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_resume import same_weights, wait_for
from tiny_runs import losses
from torch.distributed import run as distributed_run

LIMIT = 4.0
IN_TIME = LIMIT + 40  # seconds on a busy machine; without the watchdog run.dist_timeout would end a run after 60
OPTIONS = {"max_iters": 18, "iters_per_inner_epoch": 3}
SLOW = {"slow": 0.4, "slow_steps": [8, 18]}  # from then on there are seconds in which to strike


def line_of(path: Path) -> str:
    """The one line about the fault."""
    (line,) = [line for line in path.read_text().splitlines() if "error: " in line]
    return line


def ended_within(process, seconds: float) -> None:
    process.join(seconds)
    assert process.exitcode is not None, f"alive after {seconds} s"


@pytest.mark.parametrize("victim", [0, 1])  # rank 0 has the store
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_is_named_and_the_run_goes_on(victim, how, config, start_processes, run_processes, tmp_path):
    argv = config(hang_timeout=LIMIT, model=SLOW, **OPTIONS)
    processes = start_processes(argv, 2)
    wait_for(tmp_path / "out" / "log.jsonl", '"iters": 11')  # the fast steps before may be over before a heartbeat
    os.kill(processes[victim].pid, how)
    survivor = processes[1 - victim]
    ended_within(survivor, IN_TIME)
    assert survivor.exitcode == 75
    line = line_of(tmp_path / f"log.{1 - victim}")
    assert re.search(rf"error: .*rank {victim} \([^ ]+, pid {processes[victim].pid}\)", line), line
    assert "in step " in line and f"The same command goes on from the newest checkpoint in {tmp_path / 'out'}" in line
    processes[victim].kill()
    processes[victim].join(60)
    if (victim, how) == (1, signal.SIGKILL):
        assert run_processes(config("whole", **OPTIONS)) == [0, 0]
        assert run_processes(argv) == [0, 0]
        assert losses(tmp_path / "out") == losses(tmp_path / "whole")
        assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_a_rank_that_was_stopped_too_long_leaves_when_it_wakes(config, start_processes, tmp_path):
    processes = start_processes(config(hang_timeout=LIMIT, model=SLOW, **OPTIONS), 2)
    wait_for(tmp_path / "out" / "log.jsonl", '"iters": 8')
    os.kill(processes[1].pid, signal.SIGSTOP)
    ended_within(processes[0], IN_TIME)
    os.kill(processes[1].pid, signal.SIGCONT)
    ended_within(processes[1], IN_TIME)
    assert [process.exitcode for process in processes] == [75, 75]
    assert "rank 0" in line_of(tmp_path / "log.1").replace("rank 1: error", "")


def test_a_rank_that_lives_but_does_nothing_is_named(config, start_processes, tmp_path):
    options = {**OPTIONS, "model": {"hang_at": 4, "nan_rank": 1}}
    processes = start_processes(config(hang_timeout=LIMIT, **options), 2)
    for rank, process in enumerate(processes):
        process.join(300)
        assert process.exitcode == 75
        line = line_of(tmp_path / f"log.{rank}")
        assert f"pid {processes[1].pid}) has made no progress for " in line
        assert "in step 5, forward pass at tiny_lavis.py:" in line
        assert f"pid {processes[0].pid})" not in line


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_torchrun_restarts_from_the_checkpoint(how, config, run_processes, tmp_path):
    """A real command: its agent restarts all ranks; a stopped one it must kill first, which takes it 30 s."""
    options = {"max_iters": 20, "iters_per_inner_epoch": 5}
    argv = config(hang_timeout=5, model={"slow": 0.2}, **options)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=2"]
    with open(tmp_path / "log", "w") as log:
        run = subprocess.Popen(
            [*command, str(Path(__file__).parent / "tiny_run.py"), *argv],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "LOGLEVEL": "INFO"},
        )
        wait_for(tmp_path / "out" / "log.jsonl", '"iters": 7', 300)
        victim = rank_process(run.pid, 1)
        os.kill(victim, how)
        assert run.wait(400) == 0, (tmp_path / "log").read_text()[-5000:]
    text = (tmp_path / "log").read_text()
    assert re.search(
        rf"error: rank 1 \([^ ]+, pid {victim}\) has not been heard of for \d+ s, last in step \d+, ", text
    )
    assert "going on after step 5" in text
    assert run_processes(config("whole", model={"slow": 0.0}, **options)) == [0, 0]
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("handled", [False, True])
def test_sigusr1_to_torchrun_saves_the_run(handled, config, run_processes, tmp_path):
    """The agent ends by it, unless told otherwise; its processes save and leave in both cases."""
    options = {"max_iters": 20, "iters_per_inner_epoch": 20}
    argv = config(hang_timeout=60, model={"slow": 0.3}, **options)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    if handled and "signals_to_handle" not in Path(distributed_run.__file__).read_text():
        pytest.skip("this torchrun passes no other signals on")
    command += ["--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"] * handled
    with open(tmp_path / "log", "w") as log:
        env = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        script = str(Path(__file__).parent / "tiny_run.py")
        run = subprocess.Popen([*command, script, *argv], cwd=tmp_path, stdout=log, stderr=log, env=env)
        wait_for(tmp_path / "out" / "log.jsonl", '"iters": 3', 300)
        ranks = [rank_process(run.pid, rank) for rank in range(2)]
        os.kill(run.pid, signal.SIGUSR1)
        assert run.wait(100) == (1 if handled else -signal.SIGUSR1)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < end
        time.sleep(0.1)
    done = len(losses(tmp_path / "out"))
    assert done < 20 and (tmp_path / "out" / f"checkpoint_{done}.pth").is_file()
    assert run_processes(argv) == [0, 0]
    assert run_processes(config("whole", **options)) == [0, 0]
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def rank_process(agent: int, rank: int) -> int:
    """The process of a rank below torchrun."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"torchrun has no rank {rank}")
