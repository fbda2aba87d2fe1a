"""The launchers: reading the yaml, choosing the runner, errors, and several processes by torchrun."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.distributed.elastic.utils.distributed import get_free_port

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "runners"))

from tiny_runs import losses, rows, write_config  # noqa: E402

from lavis_evlgen import launch  # noqa: E402
from lavis_evlgen.configuration.read import read_config  # noqa: E402
from lavis_evlgen.errors import ConfigError  # noqa: E402


def test_interpolations_are_resolved(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "paths: {root: data}\nmodel: {arch: a, prompt: '${run.task} ${paths.root}'}\n"
        "datasets:\n  d:\n    images: ${paths.root}/images\nrun:\n  task: t\n  seed: 1\n  k: ${.seed}\n"
    )
    config = read_config(str(path), ["run.seed=7", "model.model_type=x"])
    assert OmegaConf.to_container(config) == {
        "model": {"arch": "a", "prompt": "t data", "model_type": "x"},
        "datasets": {"d": {"images": "data/images"}},
        "run": {"task": "t", "seed": 7, "k": 7},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [unclosed", "is not valid yaml"),
        ("model: {a: 1}\nrun: {a: 1}\n", "the section datasets is missing or empty"),
        ("- a\n- b\n", "must hold the sections model, datasets, run"),
        ("model: {a: '${run.nothing}'}\ndatasets: {d: 1}\nrun: {b: 1}\n", "(model.a): Interpolation key 'run.nothing'"),
        ("model:\n  a: ???\ndatasets: {d: 1}\nrun: {b: 1}\n", "(model.a): Missing mandatory value"),
        ("", "the section model and datasets and run is missing or empty"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config(str(path), [])
    assert message in str(error.value) and "bad.yaml" in str(error.value)


def test_wrong_options(tmp_path):
    with pytest.raises(ConfigError, match="takes KEY=VALUE"):
        read_config(write_config(tmp_path)[1], ["run.seed", "1"])


def test_errors_are_one_line_and_exit_code_2(tmp_path, capsys):
    assert launch.main(["--cfg-path", str(tmp_path / "none.yaml")]) == 2
    argv = write_config(tmp_path, batch_size_trian=3)
    assert launch.main(argv) == 2
    error = capsys.readouterr().err
    assert "none.yaml: there is no such file" in error
    assert "error: configuration: run.batch_size_trian is unknown; did you mean 'batch_size_train'?" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("named", ["runner_iter", "runner_base"])
def test_lavis_runners_are_replaced_and_it_is_said_once(named, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    launch.start(write_config(tmp_path, runner=named, max_iters=1), evaluate=False)
    assert len(losses(tmp_path / "out")) == 1
    assert caplog.text.count("using runner_evlgen in its place (--stock-runner keeps LAVIS's)") == 1


def test_stock_runner_keeps_the_name():
    run = OmegaConf.create({})
    assert launch.choose_runner(run, stock=False) == "runner_evlgen"
    assert launch.choose_runner(OmegaConf.create({}), stock=True) == "runner_base"
    assert launch.choose_runner(OmegaConf.create({"runner": "runner_iter"}), stock=True) == "runner_iter"


def test_options_choose_the_default_yaml_and_evaluate_is_forced(tmp_path):
    argv = write_config(tmp_path, valid_splits=["val"])
    metrics = launch.start([*argv, "--options", "datasets.tiny_data.train=8", "run.batch_size_eval=3"], evaluate=True)
    assert metrics["val"]["count"] == 12
    saved = OmegaConf.load(tmp_path / "out" / "config.yaml")
    assert saved.run.evaluate is True and saved.run.batch_size_eval == 3 and saved.datasets.tiny_data.train == 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_cuda_without_a_gpu_runs_on_the_cpu_and_says_so(tmp_path, caplog):
    launch.start(write_config(tmp_path, device="cuda", amp=True, max_iters=1), evaluate=False)
    assert caplog.text.count("run.device is cuda, but torch finds no GPU here: running on the CPU") == 1
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").run.device == "cpu"


def test_missing_peers_are_said_with_the_way_out(tmp_path, capsys, monkeypatch):
    port = get_free_port()
    peers = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for key, value in peers.items():
        monkeypatch.setenv(key, value)
    assert launch.main(write_config(tmp_path, dist_timeout=1)) == 2
    error = capsys.readouterr().err
    assert f"rank 0 of 2 could not join the others at 127.0.0.1:{port} (gloo, run.dist_timeout 1 s)" in error


def test_torchrun_and_the_repository_launchers(tmp_path):
    """Real commands: two processes by torchrun, and lavis/evaluate.py, which must find the installed LAVIS."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    argv = write_config(tmp_path, max_iters=4, valid_splits=["val"])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    train = [*torchrun, str(REPOSITORY / "tests" / "runners" / "tiny_run.py"), *argv]
    wrong = [sys.executable, "lavis/evaluate.py", "--cfg-path", "none.yaml"]
    commands = [(train, tmp_path), (wrong, REPOSITORY)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    started = [subprocess.Popen(command, cwd=folder, **pipes) for command, folder in commands]
    (_, train_error), (_, wrong_error) = [process.communicate(timeout=600) for process in started]
    assert started[0].returncode == 0, train_error[-9000:]
    assert [iters for iters, _, _ in losses(tmp_path / "out")] == [1, 2, 3, 4]
    assert [row["count"] for row in rows(tmp_path / "out", "split")] == [12]
    assert started[1].returncode == 2
    assert wrong_error.strip().splitlines()[-1].startswith("error: --cfg-path none.yaml: there is no such file")
