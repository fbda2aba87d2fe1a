"""LAVIS's own BLIP-2 models, untouched but for lavis_repairs, train, evaluate and resume with our runner on a CPU.

The weights that LAVIS fetches are tiny here: its factory of the ViT makes a small one, transformers finds a small BERT
under the name bert-base-uncased in its cache, and `opt_model` names a folder.
"""

import functools
import json

import blip2_runs
import pytest
import tiny_bert
import torch
from lavis.common.registry import registry
from lavis.models import clip_vit, eva_vit
from lavis.models.blip2_models import blip2, blip2_opt
from omegaconf import OmegaConf
from reports.finished_run import make_data


@pytest.fixture(autouse=True)
def tiny_parts(reference, monkeypatch, tmp_path):
    """Small weights where LAVIS looks for its own."""

    def create(img_size, drop_path_rate, use_checkpoint, precision):
        assert precision == "fp32", "half precision would not run on a processor"
        norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
        return eva_vit.VisionTransformer(norm_layer=norm, **reference["vit_config"])

    monkeypatch.setattr(eva_vit, "create_eva_vit_g", create)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny_bert.put_into_hub_cache(tmp_path / "hub", monkeypatch)


@pytest.fixture
def stock_config(parity_dir):
    def build(arch="blip2_opt", **overrides):
        config = {
            "image_size": 56,
            "num_query_token": 4,
            "max_txt_len": 12,
            "load_finetuned": False,
            "pretrained": None,
        }
        if arch == "blip2_opt":
            config["opt_model"] = str(parity_dir / "tiny_opt")
        return {**config, **overrides}

    return build


@pytest.fixture
def stock(stock_config):
    """A seeded stock model."""

    def build(arch="blip2_opt", seed=0, **overrides):
        torch.manual_seed(seed)
        return registry.get_model_class(arch).from_config(OmegaConf.create(stock_config(arch, **overrides)))

    return build


@pytest.fixture
def run(stock_config, tmp_path):
    """Trains a stock model by our runner; its metrics, the log's records, and model.pth."""
    files = make_data(tmp_path, blip2_runs.SPLITS, labels=False)

    def train(out="out", arch="blip2_opt", **options):
        model_type = "pretrain_opt2.7b" if arch == "blip2_opt" else "pretrain"
        model = {"arch": arch, "model_type": model_type, **stock_config(arch)}
        metrics, log = blip2_runs.train(tmp_path, files, model, out, log_freq=1, **options)
        return metrics, log, torch.load(tmp_path / out / "model.pth", weights_only=True)["model"]

    return train


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_blip2_opt_of_tiny_parts_trains_and_captions(run, tmp_path, precision):
    metrics, log, weights = run(precision=precision)
    assert metrics["val"]["captions"] == 4 and len([row for row in log if "grad_norm" in row]) == 4
    assert [row["iters"] for row in log if "shuffled_loss" in row] == [4]
    parts = {name.split(".")[0] for name in weights}
    assert parts == {"ln_vision", "Qformer", "query_tokens", "opt_proj"}, "nothing that is frozen"
    captions = json.loads((tmp_path / "out" / "result" / "val_epoch4.json").read_text())
    assert len(captions) == 4 and any(row["caption"].strip() for row in captions)


def test_blip2_opt_of_tiny_parts_resumes_exactly(run, tmp_path, caplog):
    _, log, whole = run("whole")
    run("parts", save_freq=2, keep_checkpoints=9)
    for name in ("model.pth", "checkpoint_4.pth"):
        (tmp_path / "parts" / name).unlink()
    _, resumed, parts = run("parts")
    assert "going on after step 2 of" in caplog.text
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert [r["loss"] for r in resumed if "grad_norm" in r] == [r["loss"] for r in log if "grad_norm" in r]


def test_blip2_opt_of_tiny_parts_has_the_loss_of_our_qformer_arm(stock, tiny_model, batch, tmp_path):
    """The single-stage arm built from our parts is the same function: its loss, gradients of the queries, captions."""
    theirs = stock().eval()
    torch.save({"model": theirs.state_dict()}, tmp_path / "stock.pth")
    ours = tiny_model(
        "opt",
        connector="qformer",
        bert_model="bert-base-uncased",
        connector_config=None,
        num_query_token=4,
        max_txt_len=12,
        connector_weights=str(tmp_path / "stock.pth"),
    )
    ours.prompt_proj.load_state_dict(theirs.opt_proj.state_dict())
    ours.vision.encoder.load_state_dict(theirs.visual_encoder.state_dict())
    losses = [model(batch)["loss"] for model in (theirs, ours)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(ours.connector.query_tokens.grad, theirs.query_tokens.grad)
    for beams in (1, 3):
        options = {"num_beams": beams, "max_length": 8}
        assert ours.generate(batch, **options) == theirs.generate(batch, **options)


def test_stage_one_of_tiny_parts_trains_by_itself_and_starts_stage_two(run, stock, tmp_path):
    """Stock `blip2` in one process without a process group, then stock blip2_opt from its weights by `pretrained`."""
    metrics, log, weights = run("first", "blip2")
    assert metrics["val"]["captions"] == 4 and len([row for row in log if "loss_itc" in row]) == 4
    second = stock(pretrained=str(tmp_path / "first" / "model.pth"))
    own = second.state_dict()
    shared = [name for name in weights if name in own]
    assert "query_tokens" in shared and sum("_query" in name for name in shared) == 3 * 6
    assert all(torch.equal(own[name], weights[name]) for name in shared)


def test_the_qformer_of_stage_one_has_one_bias_of_the_size_of_its_vocabulary(stock):
    model = stock("blip2")
    head = model.Qformer.cls.predictions
    assert head.bias is head.decoder.bias and len(head.bias) == len(model.tokenizer) == len(tiny_bert.VOCABULARY) + 1
    saved = tiny_bert.BertForMaskedLM.from_pretrained("bert-base-uncased").cls.predictions.bias
    assert torch.equal(head.bias[: len(saved)], saved)


def test_half_precision_waits_for_a_gpu(monkeypatch, parity_dir):
    asked = []
    monkeypatch.setattr(clip_vit, "create_clip_vit_L", lambda *args: asked.append(args))
    blip2.create_clip_vit_L(56, False, "fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    blip2.create_clip_vit_L(56, False, "fp16")
    assert asked == [(56, False, "fp32"), (56, False, "fp16")]
    load = functools.partial(blip2_opt.OPTForCausalLM.from_pretrained, parity_dir / "tiny_opt")
    assert load(torch_dtype=torch.float16).dtype is torch.float16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load(torch_dtype=torch.float16).dtype is torch.float32


def test_named_weights_are_still_loaded_and_missed(stock, tmp_path):
    with pytest.raises(RuntimeError, match="checkpoint url or path is invalid"):
        stock(pretrained=str(tmp_path / "none.pth"))
    weights = {"query_tokens": torch.full((1, 4, 16), 3.0)}
    torch.save({"model": weights}, tmp_path / "some.pth")
    assert (stock(pretrained=str(tmp_path / "some.pth")).query_tokens == 3).all()
    assert (stock(load_finetuned=True, finetuned=str(tmp_path / "some.pth")).query_tokens == 3).all()
