"""One optimisation step: accumulation, clipping, NaN, several processes, precision."""

import pytest
import torch
from tiny_runs import losses, rows, trained
from torch import nn

from lavis_evlgen.errors import DataError, EvlgenError
from lavis_evlgen.runners.step import TrainStep

PLAIN = {"dropout": 0.0}


def test_accumulation_equals_the_big_batch(config, train, tmp_path):
    train(config("big", model=PLAIN, batch_size_train=8))
    train(config("parts", model=PLAIN, batch_size_train=4, accum_grad_iters=2))
    assert [row[2] for row in losses(tmp_path / "big")] == [row[2] for row in losses(tmp_path / "parts")]
    # the tail of 40 samples is the same, so both runs see the same 8 samples a step
    big, parts = trained(tmp_path / "big"), trained(tmp_path / "parts")
    for name in big:
        torch.testing.assert_close(big[name], parts[name], rtol=1e-4, atol=1e-6)


def test_two_processes_equal_one_with_the_double_batch(config, train, run_processes, tmp_path):
    train(config("one", model=PLAIN, batch_size_train=8, accum_grad_iters=2, valid_splits=["val"]))
    argv = config("two", model=PLAIN, batch_size_train=4, accum_grad_iters=2, valid_splits=["val"])
    assert run_processes(argv) == [0, 0]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [row[1] for row in one] == pytest.approx([row[1] for row in two], rel=1e-5)
    left, right = trained(tmp_path / "one"), trained(tmp_path / "two")
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-6)
    assert [row["count"] for row in rows(tmp_path / "two", "count")] == [12, 12, 12]


def test_nan_step_is_skipped_and_reported(config, train, tmp_path, caplog):
    train(config(model={"nan_at": [2, 5]}))
    found = rows(tmp_path / "out")
    assert [row["iters"] for row in found if row.get("skipped")] == [3, 6]
    assert found[2]["loss"] is None and found[3]["loss"] > 0
    assert "step 6 was skipped: its loss or gradient was not finite (2 so far)" in caplog.text
    assert all(tensor.isfinite().all() for tensor in trained(tmp_path / "out").values())


def test_nan_of_one_rank_is_skipped_by_both(config, run_processes, tmp_path):
    assert run_processes(config(model={"nan_at": [2], "nan_rank": 1})) == [0, 0]
    found = rows(tmp_path / "out")
    assert [row["iters"] for row in found if row.get("skipped")] == [3]
    assert all(row["loss"] for row in found[3:])
    assert all(tensor.isfinite().all() for tensor in trained(tmp_path / "out").values())


def test_too_many_nan_steps_stop_the_run(config, train):
    with pytest.raises(EvlgenError, match=r"not finite in 3 steps in a row \(run.max_nan_steps\): lower run.init_lr"):
        train(config(model={"nan_at": [4, 5, 6, 7]}, max_nan_steps=3))


def make_step(**options):
    model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def loss_of(model, samples):
        return model(samples["image"]).float().mean()

    return model, TrainStep(model, loss_of, optimizer, torch.device("cpu"), options.pop("precision", "fp32"), **options)


def test_clipping_bounds_the_update():
    model, step = make_step(max_grad_norm=0.5)
    result = step([{"image": torch.full((2, 4), 3.0)}], {})
    assert result.grad_norm == pytest.approx(6.0)
    torch.testing.assert_close(model.weight, torch.full((1, 4), 0.75))  # 1 - 0.5 / 2


def test_bf16_runs_the_layers_in_bf16():
    seen = []
    model, step = make_step(precision="bf16")
    model.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    step([{"image": torch.ones(2, 4)}], {})
    assert seen == [torch.bfloat16] and model.weight.dtype == torch.float32


def test_batches_are_not_changed_and_empty_ones_are_skipped():
    _, step = make_step()
    batch = {"image": torch.ones(2, 4), "bad_samples": ["x.jpg: broken"]}
    result = step([batch, {"bad_samples": ["y.jpg: broken"]}], {"epoch": 0})
    assert sorted(batch) == ["bad_samples", "image"]
    assert (result.samples, result.bad, result.skipped) == (2, 2, False)
    result = step([{"bad_samples": ["y.jpg: broken"]}], {})
    assert (result.samples, result.bad, result.skipped) == (0, 1, True)
    assert step.nan_steps == 0


def test_the_scaler_goes_on_after_a_step_in_which_no_process_had_samples():
    """With several processes such a step exchanges zeros, which the scaler has looked at."""
    model, step = make_step()
    step.scaler, step.distributed = torch.amp.GradScaler("cpu", init_scale=4.0), True
    step.loss_of = lambda model, samples: model(samples.get("image", torch.zeros(1, 4))).mean()
    assert step([{"bad_samples": ["x.jpg: broken"]}], {}).skipped
    torch.testing.assert_close(model.weight, torch.ones(1, 4))
    result = step([{"image": torch.full((2, 4), 0.25)}], {})
    assert not result.skipped and result.grad_norm == pytest.approx(0.5)
    torch.testing.assert_close(model.weight, torch.full((1, 4), 0.75))


def test_a_rank_without_good_samples_does_not_hang_the_others(config, run_processes, tmp_path):
    data = {"tiny_data": {"train": 40, "bad": 20}}
    argv = config(data=data, batch_size_train=1, max_iters=20, max_bad_share=1.0)
    assert run_processes(argv) == [0, 0]
    assert len(rows(tmp_path / "out")) == 20
    assert "skipped a bad sample: picture_" in (tmp_path / "log.1").read_text()


def test_too_many_bad_samples_stop_the_run(config, train):
    data = {"tiny_data": {"train": 200, "bad": 20}}
    with pytest.raises(
        DataError, match=r"samples could not be read, more than run.max_bad_share \(0.05\). For example: pic"
    ):
        train(config(data=data, max_iters=40))
