"""The page quotes what this package says, as it says it."""

import re
import time

import pytest
import torch
from omegaconf import OmegaConf
from pages import ROOT
from torch.utils.data import DataLoader, Dataset

from lavis_evlgen import launch, load_model_and_preprocess
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.metrics.captions import score_captions
from lavis_evlgen.models.checkpoints import read_weights
from lavis_evlgen.models.hub import load_pretrained
from lavis_evlgen.runners.data_workers import Batches
from lavis_evlgen.runners.not_finite import check_row
from lavis_evlgen.runners.out_of_memory import memory_errors_explained
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.training import restore
from lavis_evlgen.runners.verdict import Verdict

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PRETRAINING = str(ROOT / "projects/evlgen/pretrain_opt2.7b.yaml")


class Stuck(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        time.sleep(4)
        return index


def unknown_key() -> None:
    check_config(read_config(PRETRAINING, ["run.max_itersss=3"]))


def no_such_part() -> None:
    def load(source: str) -> None:
        raise OSError("not found")

    load_pretrained(load, "facebook/opt-2.7b", "opt_model")


def memory_is_out() -> None:
    run = {"batch_size_train": 8, "device": "cpu"}
    with memory_errors_explained(OmegaConf.create({"model": {"arch": "evlgen"}, "run": run})):
        raise MemoryError


def worker_gives_nothing() -> None:
    next(Batches(DataLoader(Stuck(), num_workers=1, timeout=1), "pictures"))


def weights_alone() -> None:
    restore(None, {"model": {}}, "model.pth")


LOWER = "Lower what it holds, most effective first:"
SAID = {
    "no caption has a reference: captions are of": lambda: score_captions({"1": ["a"]}, {"2": "a"}),
    "holds weights only": weights_alone,
    "run.max_itersss is unknown; did you mean 'max_iters'?": unknown_key,
    "the loss or its gradient was not finite in": lambda: check_row(10, 10, ROOT),
    "no batch came within run.data_timeout": worker_gives_nothing,
    "no shards given: set datasets.laion115M.build_info.storage": lambda: launch.start(
        ["--cfg-path", PRETRAINING, "--options", "run.device=cpu"], evaluate=False
    ),
    "opt_model: cannot load 'facebook/opt-2.7b': it is no folder here": no_such_part,
    f"{LOWER} run.batch_size_train 8 -> 4 with run.accum_grad_iters 2 (the same step)": memory_is_out,
    "model_type: blip2_opt has no default; choose one of pretrain_opt2.7b": lambda: load_model_and_preprocess(
        "blip2_opt"
    ),
}


@pytest.mark.parametrize("message", SAID)
def test_errors(message):
    assert f"\n{message}\n" in PAGE
    with pytest.raises(EvlgenError) as error:
        SAID[message]()
    assert message in str(error.value)


def test_weights_that_do_not_fit(tiny_model, parity_dir):
    message = "does not fit this model: 49 trainable tensors are missing"
    assert f"\n{message}\n" in PAGE
    model = tiny_model("opt", num_layers=3)
    with pytest.raises(EvlgenError, match=r"does not fit this model: \d+ trainable tensors are missing"):
        model.load_trainable_state_dict({"ln_vision.weight": torch.ones(3)})
    model.load_trainable_state_dict(read_weights(str(parity_dir / "liptome_opt.pth")))


def test_a_model_that_ignores_its_pictures():
    verdict = Verdict(warmup=10)
    assert verdict.note(20, {"gap": 0.0}) == []
    (warning,) = verdict.note(30, {"gap": 0.0})
    message = "held-out loss is the same with wrong pictures"
    assert message in warning and f"\n{message}\n" in PAGE


def test_no_gpu(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    launch.usable_device("cuda")
    message = "run.device is cuda, but torch finds no GPU here: running on the CPU."
    assert message in caplog.text and f"\n{message}\n" in PAGE


def test_all_fifteen_are_there_with_what_lavis_does_and_what_to_do():
    sections = re.findall(r"^## (\d+)\. .*?\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in sections] == list(range(1, 16))
    assert all("*Here:*" in text for _, text in sections)


def test_keys_that_it_names_are_known():
    named = set(re.findall(r"`run\.(\w+)", PAGE))
    others = {"metrics", "repetition_penalty", "length_penalty", "num_beams", "metrics_tokenizer"}
    assert len(named) > 10 and named - RunSettings.keys() <= others
