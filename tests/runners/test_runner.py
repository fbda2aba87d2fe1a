"""Folders, checkpoints, evaluation and reports of the runner."""

import json
import logging
import os
import resource
from pathlib import Path

import pytest
import torch
from lavis.common.registry import registry
from tiny_runs import rows, trained

from lavis_evlgen.errors import ConfigError, EvlgenError, WeightsError
from lavis_evlgen.runners.checkpointing import CheckpointFolder, load, save_atomically
from lavis_evlgen.runners.distributed import usable_device
from lavis_evlgen.runners.placement import Placement


def test_checkpoint_holds_the_trained_tensors_and_everything_to_resume(config, train, tmp_path):
    train(config(valid_splits=["val"], precision="bf16"))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.pth"))
    assert names == [*(f"checkpoint_{name}.pth" for name in ("12", "8", "best", "best_copy")), "model.pth"]
    state = load(tmp_path / "out" / "checkpoint_12.pth")
    assert set(state) == {
        "model", "optimizer", "scaler", "iters", "rng", "loader", "best", "verdict", "tally", "nan_steps",
        "config", "versions",
    }  # fmt: skip
    assert sorted(state["model"]) == ["trained.0.bias", "trained.0.weight", "trained.2.bias", "trained.2.weight"]
    assert state["iters"] == 12 and state["config"]["model"]["arch"] == "tiny"
    export = torch.load(tmp_path / "out" / "model.pth", weights_only=True)
    assert set(export) == {"model", "config"}
    assert all(tensor.dtype == torch.float32 for tensor in export["model"].values())


def test_best_weights_are_tested_and_exported_whatever_the_sign(config, train, tmp_path):
    metrics = train(config(valid_splits=["val"], test_splits=["test_unseen"], sign=-1.0))
    best = load(tmp_path / "out" / "checkpoint_best.pth")
    scores = {
        row["iters"]: row["agg_metrics"] for row in rows(tmp_path / "out", "agg_metrics") if row["split"] == "val"
    }
    assert best["best"] == {"metric": max(scores.values()), "iters": max(scores, key=scores.get)}
    assert best["best"]["metric"] <= 0
    exported = trained(tmp_path / "out")
    assert all(torch.equal(exported[name], best["model"][name]) for name in exported)
    assert metrics["test_unseen"]["count"] == 7 and metrics["val"]["count"] == 12
    assert (tmp_path / "out" / "result" / "test_unseen_epochbest.json").is_file()


def test_outputs_lie_below_the_working_directory_one_folder_a_run(config, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # LAVIS's register_path fails for the second run of a process
        train(config(auto_resume=False, output_dir="here", max_iters=1))
    folders = sorted((tmp_path / "here").iterdir())
    assert len(folders) == 2 and all(len(folder.name) == 14 for folder in folders)
    assert registry.get_path("output_dir") == str(folders[-1])
    assert (folders[0] / "config.yaml").is_file()


def test_max_epoch_counts_passes(config, train, tmp_path):
    train(config(max_iters=0, max_epoch=2, iters_per_inner_epoch=0, accum_grad_iters=2))
    assert rows(tmp_path / "out")[-1]["iters"] == 10  # 40 samples, 4 x 2 a step, twice
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint*")) == [
        "checkpoint_10.pth", "checkpoint_5.pth"
    ]  # fmt: skip


def test_length_must_be_given(config, train):
    with pytest.raises(ConfigError, match="max_iters .* or max_epoch"):
        train(config(max_iters=0))
    data = {"tiny_data": {"stream": True}}
    with pytest.raises(ConfigError, match=r"run.max_epoch: a mixture or a stream of data has no epochs"):
        train(config(max_iters=0, max_epoch=1, data=data))


def test_evaluation_only_writes_no_checkpoint_and_takes_the_best_weights(config, train, tmp_path):
    train(config(valid_splits=["val"], max_iters=8))
    expected = max(row["agg_metrics"] for row in rows(tmp_path / "out", "agg_metrics"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.pth")}
    metrics = train(config(valid_splits=["val"], max_iters=8), evaluate=True)
    assert metrics["val"]["agg_metrics"] == expected
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.pth")} == before
    fresh = train(config("other", valid_splits=["test_unseen"]), evaluate=True)
    assert fresh["test_unseen"]["count"] == 7 and not list((tmp_path / "other").glob("*.pth"))


def test_unknown_split_is_corrected(config, train):
    with pytest.raises(ConfigError, match="no data set has a split 'test_unsen'; did you mean 'test_unseen'"):
        train(config(valid_splits=["test_unsen"]), evaluate=True)
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        train(config(), evaluate=True)


def test_health_sees_whether_the_picture_matters(config, train, tmp_path, caplog):
    train(config(valid_splits=["val"], health_freq=10, max_iters=60, iters_per_inner_epoch=60, init_lr=0.03))
    found = rows(tmp_path / "out", "gap")
    assert [row["iters"] for row in found] == [10, 20, 30, 40, 50, 60]
    assert found[-1]["held_out_loss"] < 0.3 and found[-1]["gap"] > 1.5
    assert found[-1]["gap"] == pytest.approx(found[-1]["shuffled_loss"] - found[-1]["held_out_loss"])
    assert "without looking" not in caplog.text


def test_health_warns_of_a_model_that_ignores_the_picture(config, train, caplog):
    train(config(valid_splits=["val"], health_freq=3, init_lr=1e-9, warmup_lr=1e-9, model={"width": 1}))
    assert "held-out loss is the same with wrong pictures" in caplog.text


def test_tensorboard_gets_the_numbers(config, train, tmp_path):
    pytest.importorskip("tensorboard")
    train(config(tensorboard=True, max_iters=2))
    assert list((tmp_path / "out").glob("events.out.tfevents*"))


def test_log_lines_give_the_rate_in_scientific_notation(config, train, caplog):
    with caplog.at_level(logging.INFO):
        train(config(max_iters=2))
    assert "step 2/2  loss" in caplog.text and "lr 4.00e-03" in caplog.text and "images/s  left 0:00:00" in caplog.text


def test_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "checkpoint_1.pth"
    save_atomically({"model": {"x": torch.ones(3)}}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(EvlgenError, match=r"could not write .*checkpoint_1.pth.*free some space"):
            save_atomically({"model": {"x": torch.zeros(1_000_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(load(path)["model"]["x"], torch.ones(3))
    assert os.listdir(tmp_path) == ["checkpoint_1.pth"]


def test_checkpoints_run_no_code(tmp_path):
    torch.save({"model": {}, "evil": Path("x")}, tmp_path / "checkpoint_1.pth")
    with pytest.raises(WeightsError, match=r"checkpoint_1.pth is damaged or is no checkpoint"):
        load(tmp_path / "checkpoint_1.pth")
    with pytest.raises(WeightsError, match="does not exist"):
        load(tmp_path / "checkpoint_2.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no entry 'model'"):
        load(tmp_path / "list.pth")


def test_one_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "checkpoint_1.pth"
    save_atomically({"model": {"x": torch.ones(1000)}}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(2).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="checksum of .* is wrong"):
        load(path)


def test_folder_keeps_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for iters in (9, 10, 100):
        folder.save({"iters": iters, "model": {}})
    assert [path.name for path in folder.numbered()] == ["checkpoint_100.pth", "checkpoint_10.pth"]


def test_a_damaged_checkpoint_of_a_later_step_takes_no_place(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    (tmp_path / "checkpoint_12.pth").write_bytes(b"damaged")
    for iters in (9, 10):
        folder.save({"iters": iters, "model": {}})
        assert folder.latest()[0].name == f"checkpoint_{iters}.pth"
    assert [path.name for path in folder.numbered()] == ["checkpoint_12.pth", "checkpoint_10.pth"]


def test_placement_from_torchrun_and_slurm():
    assert Placement.from_environment({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Placement(3, 1, 8)
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
    assert Placement.from_environment(slurm) == Placement(5, 1, 16)
    assert Placement.from_environment({}) == Placement(0, 0, 1)


def test_what_a_batch_script_starts_without_srun_is_alone():
    """sbatch gives its script the number of tasks of the job; nobody else would come to the meeting point."""
    script = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_LOCALID": "0"}
    assert Placement.from_environment(script) == Placement(0, 0, 1)


@pytest.mark.parametrize(("seen", "index"), [(8, 3), (1, 0)])
def test_the_gpu_of_a_process(seen, index, monkeypatch):
    """With ``srun --gpus-per-task=1`` each process sees its own alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    assert usable_device("cuda", local_rank=3) == torch.device("cuda", index)
    assert usable_device("cuda:2", local_rank=3) == torch.device("cuda", 2)


def test_log_is_json(config, train, tmp_path):
    train(config(model={"nan_at": [0]}, max_iters=2))
    for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
