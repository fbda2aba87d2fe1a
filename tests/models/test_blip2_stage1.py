"""BLIP-2's first stage on our parts: LAVIS's losses, what may be configured, several processes, and its captions."""

import functools
import multiprocessing

import blip2_runs
import pytest
import tiny_bert
import torch
import torch.distributed as dist
from lavis.common.registry import registry
from lavis.models import base_model, eva_vit
from lavis.models.blip2_models import blip2, blip2_qformer
from omegaconf import OmegaConf
from PIL import Image
from reports.finished_run import make_data
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForMaskedLM

from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.loading import load_model_and_preprocess
from lavis_evlgen.runners.trainable import SkipsEmptyBatches

PARTS = ("loss_itc", "loss_itm", "loss_lm")
TEXTS = ["a red cat", "the small dog", "a big blue tree"]


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    return tiny_bert.write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def stage1_config(reference, bert_folder):
    """Model configuration of a tiny first stage: ``stage1_config(num_query_token=3)``."""

    def build(**overrides):
        return {
            "vit_model": "eva_vit",
            "vit_config": reference["vit_config"],
            "image_size": 56,
            "vit_precision": "fp32",
            "bert_model": bert_folder,
            "num_query_token": 4,
            "embed_dim": 8,
            "max_txt_len": 12,
            **overrides,
        }

    return build


@pytest.fixture(scope="session")
def stage1(stage1_config):
    """A seeded tiny first stage."""

    def build(seed=0, **overrides):
        torch.manual_seed(seed)
        cls = registry.get_model_class("blip2_stage1")
        return cls.from_config(OmegaConf.create(stage1_config(**overrides)))

    return build


@pytest.fixture
def samples(reference):
    return {"image": reference["liptome_opt"]["image"], "text_input": TEXTS, "image_id": ["a", "b", "c"]}


@pytest.fixture
def one_process_group():
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{get_free_port()}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_losses_and_gradients_are_those_of_the_stock_model(
    stage1, samples, reference, monkeypatch, tmp_path, one_process_group
):
    """LAVIS's Blip2Qformer, its gathering as shipped; only its ViT is replaced by a tiny one, its BERT a cached one."""
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    monkeypatch.setattr(
        blip2, "create_eva_vit_g", lambda *_: eva_vit.VisionTransformer(norm_layer=norm, **reference["vit_config"])
    )
    tiny_bert.put_into_hub_cache(tmp_path, monkeypatch)
    torch.manual_seed(3)
    stock = blip2_qformer.Blip2Qformer(img_size=56, num_query_token=4, embed_dim=8, max_txt_len=12)
    ours = stage1()
    ours.load_trainable_state_dict(stock.state_dict())  # under LAVIS's names, the ViT's too
    shipped = {"dist": dist, "concat_all_gather": base_model.concat_all_gather}
    with monkeypatch.context() as patched:
        for name, what in {**shipped, "all_gather_with_grad": base_model.all_gather_with_grad}.items():
            patched.setattr(blip2_qformer, name, what)
        torch.manual_seed(11)  # of the negatives that are drawn for matching
        expected = stock(samples)
    expected.loss.backward()
    torch.manual_seed(11)
    output = ours(samples)
    output["loss"].backward()
    assert output["loss"] == sum(output[part] for part in PARTS)
    assert [float(output[part]) for part in PARTS] == [float(expected[part]) for part in PARTS]
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    for name, parameter in stock.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients.pop(name), parameter.grad, rtol=0, atol=0)
    assert not gradients


def test_cached_features_give_the_loss_of_their_pictures(stage1, samples):
    model = stage1()
    features = {"vision_features": model.vision(samples["image"]), "text_input": TEXTS}
    losses = []
    for batch in (samples, features):
        torch.manual_seed(1)
        losses.append({name: float(value) for name, value in model(batch).items()})
    assert losses[0] == losses[1]
    image, cached = (model.extract_features(batch, "image").image_embeds for batch in (samples, features))
    assert image.shape == (3, 4, 16) and torch.equal(image, cached)


def test_it_starts_from_the_berts_weights(stage1, bert_folder):
    model = stage1()
    bert = AutoModelForMaskedLM.from_pretrained(bert_folder).state_dict()
    own = model.Qformer.state_dict()
    words = len(tiny_bert.VOCABULARY)
    assert model.tokenizer.bos_token_id == words and len(model.tokenizer) == words + 1
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "cls.predictions.bias"):
        assert len(own[name]) == words + 1 and torch.equal(own[name][:words], bert[name])
    for layer in range(3):
        dense = f"bert.encoder.layer.{layer}.intermediate"
        assert torch.equal(own[f"{dense}_query.dense.weight"], bert[f"{dense}.dense.weight"])
        assert (f"bert.encoder.layer.{layer}.crossattention.self.key.weight" in own) == (layer % 2 == 0)
    head = model.Qformer.cls.predictions
    assert head.bias is head.decoder.bias and head.decoder.weight is model.Qformer.get_input_embeddings().weight


def test_everything_that_trains_gets_a_gradient_and_is_in_one_group(stage1, samples):
    model = stage1()
    model(samples)["loss"].backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    decayed, plain = model.optimizer_groups(0.05)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {id(p) for p in decayed["params"]} | {id(p) for p in plain["params"]} == {id(p) for p in trained.values()}
    assert any(p is model.temp for p in plain["params"]) and any(p is model.query_tokens for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(trained)
    assert not any(p.requires_grad for p in model.vision.parameters())


def test_weights_travel_by_their_names(stage1, samples, tmp_path):
    one, two = stage1(0).eval(), stage1(1).eval()
    torch.save({"model": one.trainable_state_dict()}, tmp_path / "model.pth")
    two.load_checkpoint(str(tmp_path / "model.pth"))
    two.vision.load_state_dict(one.vision.state_dict())
    torch.manual_seed(2)
    first = one(samples)["loss"]
    torch.manual_seed(2)
    assert torch.equal(first, two(samples)["loss"])
    weights = one.trainable_state_dict()
    del weights["temp"]
    with pytest.raises(WeightsError, match="1 trainable tensors are missing, first temp"):
        two.load_trainable_state_dict(weights)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tome_r": 3}, "model.tome_r is unknown"),
        ({"embed_dimm": 3}, "model.embed_dimm is unknown; did you mean 'embed_dim'"),
        ({"bert_model": None}, "model.bert_model is not set"),
        ({"num_layers": 4}, r"num_layers: 4, but .* has fewer \(no bert.encoder.layer.3"),
        ({"connector_config": {"intermediate_size": 20}}, "connector_config: sizes differ from those of"),
        ({"connector_config": {"hidden_sizes": 20}}, "BertConfig has no hidden_sizes"),
    ],
)
def test_wrong_configurations_are_named(stage1, overrides, message):
    with pytest.raises(ConfigError, match=message):
        stage1(**overrides)


def test_size_and_dropout_may_be_configured(stage1):
    model = stage1(num_layers=2, num_query_token=3, connector_config={"hidden_dropout_prob": 0.5})
    assert len(model.Qformer.bert.encoder.layer) == 2 and model.query_tokens.shape == (1, 3, 16)
    assert {m.p for name, m in model.Qformer.named_modules() if name.endswith("output.dropout")} == {0.5}


def test_a_batch_of_one_says_what_to_set(stage1, samples):
    with pytest.raises(ConfigError, match=r"a batch holds one picture.*run.batch_size_train and run.batch_size_eval"):
        stage1()({"image": samples["image"][:1], "text_input": TEXTS[:1]})


def greedy(model, image, length):
    """Captions by repeated forward passes of the Q-Former, the highest score first."""
    embeds = model.ln_vision(model.vision(image))
    queries = model.query_tokens.expand(len(image), -1, -1)
    ids = torch.full((len(image), 1), model.tokenizer.bos_token_id)
    while ids.shape[1] < length:
        mask = torch.ones(len(image), queries.shape[1] + ids.shape[1], dtype=torch.long)
        scores = model.Qformer(
            ids, query_embeds=queries, attention_mask=mask, encoder_hidden_states=embeds, return_dict=True
        ).logits
        ids = torch.cat([ids, scores[:, -1].argmax(-1, keepdim=True)], dim=1)
    texts = []
    for row in ids.tolist():
        end = row.index(model.tokenizer.sep_token_id) if model.tokenizer.sep_token_id in row else None
        texts.append(model.tokenizer.decode(row[:end], skip_special_tokens=True))
    return texts


@torch.no_grad()
def test_captions_are_the_heads_own(stage1, samples):
    model = stage1().eval()
    assert model.generate(samples, num_beams=1, max_length=7, min_length=1) == greedy(model, samples["image"], 7)
    features = {"vision_features": model.vision(samples["image"])}
    beams = model.generate(features, num_beams=3, max_length=7, min_length=1)
    for image, caption in zip(samples["image"], beams, strict=True):
        assert model.generate({"image": image[None]}, num_beams=3, max_length=7, min_length=1) == [caption]


@pytest.fixture
def run(stage1_config, tmp_path):
    """Runs of the first stage by our runner; metrics, and the records of the log."""
    model = {"arch": "blip2_stage1", "model_type": "demo", **stage1_config()}
    files = make_data(tmp_path, blip2_runs.SPLITS, labels=False)
    return functools.partial(blip2_runs.train, tmp_path, files, model, log_freq=2)


def test_it_trains_by_our_runner_on_cached_features(run, tmp_path):
    cache = {"feature_cache": str(tmp_path / "features"), "precision": "bf16"}
    metrics, log = run(**cache)
    assert metrics["val"]["captions"] == 4 and "CIDEr" in metrics["val"]
    steps = [row for row in log if "loss_itc" in row]
    assert [row["iters"] for row in steps] == [2, 4]
    (health,) = [row for row in log if "shuffled_loss" in row]
    assert health["held_out_loss"] > 0
    _, every = run("every", log_freq=1, **cache)
    for row in (row for row in every if "loss_itc" in row):
        assert sum(row[part] for part in PARTS) == pytest.approx(row["loss"], abs=1e-4)
    assert steps[1]["loss_lm"] == pytest.approx(
        sum(row["loss_lm"] for row in every if row["iters"] in (3, 4) and "loss_lm" in row) / 2, abs=1e-4
    )


def test_the_pretraining_task_trains_it_without_captions(run):
    metrics, log = run(task="image_text_pretrain")
    assert metrics == {} and [row["iters"] for row in log if "shuffled_loss" in row] == [4]
    assert [row["iters"] for row in log if row.keys() >= {"loss_itc", "loss_itm", "loss_lm"}] == [2, 4]


def test_it_resumes_to_the_same_weights(run, tmp_path, caplog):
    run("whole")
    run("parts", save_freq=2, keep_checkpoints=9)
    for name in ("model.pth", "checkpoint_4.pth"):
        (tmp_path / "parts" / name).unlink()
    run("parts")
    assert "going on after step 2 of" in caplog.text
    whole, parts = (torch.load(tmp_path / out / "model.pth", weights_only=True)["model"] for out in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def _rank(rank, port, model, batches, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    wrapped = DistributedDataParallel(SkipsEmptyBatches(model), broadcast_buffers=False)
    results = []
    for training, parts in batches:
        wrapped.train(training)
        wrapped.zero_grad()
        torch.manual_seed(rank)
        output = (wrapped if training else model)(parts[rank]) if parts[rank] is not None else None
        if training:
            output["loss"].backward()
        losses = {name: float(value) for name, value in (output or {}).items()}
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((losses, gradients))
    torch.save(results, f"{path}.{rank}")
    dist.destroy_process_group()


def two_processes(model, batches, path):
    """What both ranks give for a list of (training, (batch of rank 0, batch of rank 1))."""
    context = multiprocessing.get_context("fork")
    port = get_free_port()
    processes = [context.Process(target=_rank, args=(rank, port, model, batches, str(path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(f"{path}.{rank}", weights_only=True) for rank in range(2)]


def test_two_processes_contrast_their_batches_with_each_other(stage1, reference, tmp_path):
    model = stage1()
    images = reference["liptome_opt"]["image"]
    images = torch.cat([images, images.flip(0) + 0.3])[:6]
    texts = [*TEXTS, "a car on a box", "the disc 3", "an 8"]

    def cut(*places):
        return {"image": images[list(places)], "text_input": [texts[place] for place in places]}

    both = (cut(0, 1, 2), cut(3, 4, 5))
    batches = [
        (True, both),
        (True, (cut(0, 1, 2, 3), cut(4, 5))),  # of another size, since pictures could not be read
        (True, (cut(0, 1, 2), {})),  # none could
        (False, (cut(0, 1), None)),  # held-out batches: the last one is rank 0's alone
    ]
    (ranks,) = [list(zip(*two_processes(model, batches, tmp_path / "rank"), strict=True))]
    for (_, one), (_, two) in ranks[:3]:
        assert one.keys() == two.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
        for name in one:
            assert torch.isfinite(one[name]).all()
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=0)
        assert any(gradient.any() for gradient in one.values())

    def alone(batch):
        with torch.no_grad():
            return {name: float(value) for name, value in model(batch).items()}

    whole = alone(cut(0, 1, 2, 3, 4, 5))
    (first, _), (second, _) = ranks[0]
    assert (first["loss_itc"] + second["loss_itc"]) / 2 == pytest.approx(whole["loss_itc"], rel=1e-5)
    assert first["loss_itc"] != pytest.approx(alone(both[0])["loss_itc"], rel=1e-3)
    for (losses, _), batch in zip(ranks[1], batches[1][1], strict=True):
        assert losses["loss_itc"] == pytest.approx(alone(batch)["loss_itc"], rel=1e-5)
    assert ranks[2][1][0] == {"loss": 0.0}
    model.eval()
    assert ranks[3][0][0]["loss_itc"] == pytest.approx(alone(cut(0, 1))["loss_itc"], rel=1e-5)


def test_two_processes_in_half_precision(stage1, samples, tmp_path):
    """Gloo gathers what autocast computes in bf16."""
    model = stage1()
    forward = model.forward

    def half(batch):
        with torch.autocast("cpu", torch.bfloat16):
            return forward(batch)

    model.forward = half
    (one,), (two,) = two_processes(model, [(True, (samples, samples))], tmp_path / "rank")
    assert one[0]["loss_itc"] == pytest.approx(two[0]["loss_itc"], abs=0.05) and one[0]["loss"] > 0
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_the_packaged_model_types():
    """The demo's is built from embedded weights; the other one needs a ViT of 1 B parameters: its keys."""
    model, processors, _ = load_model_and_preprocess("blip2_stage1")
    assert len(model.tokenizer) == 30523 and model.query_tokens.shape == (1, 32, 384) and not model.training
    crossing = [layer.has_cross_attention for layer in model.Qformer.bert.encoder.layer]
    assert crossing == [True, False, True, False, True, False]
    picture = processors["eval"](Image.new("RGB", (64, 48), "red"))
    with torch.no_grad():
        assert torch.isfinite(model({"image": torch.stack([picture] * 2), "text_input": TEXTS[:2]})["loss"])
    large = OmegaConf.load(model.default_config_path("pretrain")).model
    assert set(large) <= model.CONFIG_KEYS and (large.vit_model, large.num_query_token) == ("eva_clip_g", 32)
    with pytest.raises(
        ConfigError, match="model_type: 'dmeo' is unknown for Blip2Stage1Zoo; choose one of demo, pretrain"
    ):
        model.default_config_path("dmeo")
