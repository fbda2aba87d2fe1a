"""Models of every family, saved and loaded again: what they compute, and what is refused."""

import json

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_processors import PREPROCESS

import lavis_evlgen
from lavis_evlgen import cli
from lavis_evlgen.errors import ConfigError, EvlgenError, WeightsError
from lavis_evlgen.models.evlgen import EVLGen

FAMILIES = {
    "opt": "evlgen_opt",
    "vicuna": "evlgen_vicuna",
    "any": "evlgen",
    "video_opt": "evlgen_video",
    "video": "evlgen_video",
}


def again(folder, cls=EVLGen, **overrides):
    torch.manual_seed(0)  # the tiny frozen ViT has no file of weights
    return cls.from_pretrained(folder, **overrides)


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_computes_the_same_to_the_bit(kind, tiny_model, batch, tmp_path):
    model = tiny_model(kind, prompt="a photo of", **({"temporal": "concat"} if kind == "video" else {}))
    with torch.no_grad():  # away from the start of the seed that the loaded one has too
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    loaded = again(model.save_pretrained(tmp_path / "saved", preprocess=PREPROCESS))
    assert type(loaded) is type(model) is registry.get_model_class(FAMILIES[kind]) and not loaded.training
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(batch)["loss"], model(batch)["loss"])
        assert torch.equal(loaded.soft_prompt(batch), model.soft_prompt(batch))
    assert loaded.generate(batch, max_length=5) == model.generate(batch, max_length=5)


def test_the_first_stage_of_blip2_computes_the_same_to_the_bit(tiny_stage1, batch, tmp_path):
    model = tiny_stage1()
    loaded = again(model.save_pretrained(tmp_path / "saved", preprocess=PREPROCESS), type(model))
    losses = []
    for each in (model, loaded):
        torch.manual_seed(1)  # hard negatives are drawn
        losses.append(each(batch)["loss"].item())
    assert losses[0] == losses[1] > 0
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    with pytest.raises(ConfigError, match=r"holds a model 'blip2_stage1', which is no EVLGen: name 'blip2_stage1'"):
        again(tmp_path / "saved")


@pytest.mark.parametrize(("dtype", "bits"), [("fp16", 11), ("bf16", 8)])
def test_half_precision_rounds_each_number_once(dtype, bits, tiny_model, tmp_path):
    model = tiny_model("any")
    folder = model.save_pretrained(tmp_path / "saved", dtype=dtype, preprocess=PREPROCESS)
    loaded, expected = again(folder).trainable_state_dict(), model.trainable_state_dict()
    worst = max(
        ((loaded[name] - tensor).abs() / tensor.abs().clamp(min=1e-3)).max() for name, tensor in expected.items()
    )
    assert 0 < worst <= 2.0**-bits
    file = load_file(folder / "model.safetensors")
    assert {str(tensor.dtype) for tensor in file.values()} == {
        {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[dtype]
    }


def test_what_is_in_the_folder(saved, tiny_model):
    assert sorted(file.name for file in saved.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip
    assert load_file(saved / "model.safetensors").keys() == tiny_model("any").trainable_state_dict().keys()
    config = json.loads((saved / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("evlgen", ["EVLGenAny"])
    assert (config["library_version"], config["torch_dtype"]) == (lavis_evlgen.__version__, "float32")
    assert config["model"]["image_size"] == 56 and "arch" not in config["model"]
    processors = json.loads((saved / "preprocessor_config.json").read_text())
    clip_mean = [0.48145466, 0.4578275, 0.40821073]  # LAVIS's default, which the yaml need not say
    assert processors["vis_processor"]["eval"]["mean"] == pytest.approx(clip_mean, abs=1e-8)
    assert "steps | not recorded" not in (saved / "README.md").read_text()
    assert "## Data\n\nNot recorded." in (saved / "README.md").read_text()


def test_a_folder_gives_processors_and_captions_on_the_command_line(saved, tiny_model, tmp_path, capsys):
    picture = tmp_path / "red.png"
    Image.new("RGB", (64, 48), (220, 50, 40)).save(picture)
    torch.manual_seed(0)
    model, vis_processors, text_processors = lavis_evlgen.load_model_and_preprocess("evlgen", saved)
    image = vis_processors["eval"](Image.open(picture))
    assert image.shape == (3, 56, 56) and text_processors["eval"]("A  dog.") == "a dog"
    expected = tiny_model("any").generate({"image": image[None]}, num_beams=2, max_length=6)
    assert model.generate({"image": image[None]}, num_beams=2, max_length=6) == expected
    for options in (["--checkpoint", str(saved)], ["--model", "evlgen", "--checkpoint", str(saved)]):
        torch.manual_seed(0)
        assert (
            cli.main(["caption", *options, "--device", "cpu", "--num-beams", "2", "--max-length", "6", str(picture)])
            == 0
        )
        assert capsys.readouterr().out == f"{picture}: {expected[0]}\n"
    assert cli.main(["caption", "--model", "evlgen_opt", "--checkpoint", str(saved), str(picture)]) == 2
    assert "holds a model 'evlgen', which is no EVLGenOPT" in capsys.readouterr().err


def test_a_loaded_model_can_be_saved_again_and_keeps_a_card_that_was_written(saved, tmp_path):
    (saved / "README.md").write_text("mine")
    before = (saved / "model.safetensors").read_bytes()
    again(saved).save_pretrained(saved)
    assert (saved / "README.md").read_text() == "mine" and (saved / "model.safetensors").read_bytes() == before
    copy = again(saved).save_pretrained(tmp_path / "copy")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        assert (copy / name).read_bytes() == (saved / name).read_bytes()


def test_a_folder_can_be_what_a_yaml_starts_from(saved, tiny_config, tiny_model):
    config = OmegaConf.create(tiny_config("any", load_pretrained=True, pretrained=str(saved)))
    weights = registry.get_model_class("evlgen").from_config(config).trainable_state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny_model("any").trainable_state_dict().items())


def test_parts_that_are_elsewhere_here(saved, tmp_path, parity_dir):
    path = saved / "config.json"
    model = json.loads(path.read_text())["model"]
    edit(path, model={**model, "llm_model": "/gone/llama"})
    message = r"config.json: model.llm_model is the path '/gone/llama', which is not here; give another one: from_pretr"
    with pytest.raises(WeightsError, match=message):
        again(saved)
    assert again(saved, llm_model=str(parity_dir / "tiny_llama")).language.width > 0
    with pytest.raises(ConfigError, match=r"model.lm_model is unknown; did you mean 'llm_model'"):
        again(saved, lm_model="x")
    with pytest.raises(ConfigError, match=r"model.pretrained cannot be given with a folder"):
        again(saved, pretrained="x.pth")


def test_wrong_json_files_are_named(saved):
    config, processors = saved / "config.json", saved / "preprocessor_config.json"
    good = json.loads(config.read_text())

    def refused(message):
        with pytest.raises(ConfigError, match=message):
            again(saved)

    for changes, message in (
        ({"model": {**good["model"], "tome_rr": 3}}, r"config.json: model.tome_rr is unknown; did you mean 'tome_r'"),
        ({"modle": {}}, r"config.json: the key 'modle' is unknown; did you mean 'model'"),
        (
            {"model_type": "evlgn"},
            r"config.json: model_type: 'evlgn' is no model of this package; did you mean 'evlgen'",
        ),
        ({"model_type": "blip_caption"}, r"'blip_caption' is no model of this package"),
        ({"format": 2}, r"config.json: format 2 is not known to this version; update"),
        ({"model": [1]}, r"config.json: the key 'model' holds no model keys"),
        ({"model": {**good["model"], "image_size": "big"}}, r"config.json: model.image_size: 'big', expected int"),
        ({"model": {**good["model"], "pretrained": "/etc/passwd"}}, r"config.json: model.pretrained is unknown"),
        ({"model": {**good["model"], "prompt": "${oc.env:HOME}"}}, r"config.json: '\$\{oc.env:HOME\}' holds '\$\{'"),
    ):
        edit(config, **changes)
        refused(message)
        config.write_text(json.dumps(good))
    for content, message in (
        ("{", "preprocessor_config.json is damaged"),
        ("[]", r"preprocessor_config.json is damaged \(it holds no object\)"),
        ("{}", r"preprocessor_config.json: vis_processor.eval is missing"),
        ('{"vis_processr": {}}', r"the key 'vis_processr' is unknown; did you mean 'vis_processor'"),
        (
            '{"vis_processor": {"eval": {"name": "blip_image_evl"}}}',
            r"'blip_image_evl' is not registered; did you mean",
        ),
        ('{"vis_processor": {"eval": "x"}}', r"vis_processor.eval names no processor"),
    ):
        processors.write_text(content)
        refused(message)
    config.unlink()
    refused(
        r"config.json is missing, so this is no model's folder of save_pretrained; in .*saved are model.safetensors"
    )


def test_wrong_weights_are_named(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    weights = load_file(path)

    def refused(message):
        with pytest.raises(WeightsError, match=message):
            again(saved)

    path.write_bytes(whole[:-10])
    refused(r"model.safetensors' is damaged")
    save_file({**weights, "prompt_proj.bias": torch.zeros(3)}, path)
    refused(r"model.safetensors does not fit this model: 1 tensors have another shape, first prompt_proj.bias \(3,\)")
    save_file({name: tensor for name, tensor in weights.items() if name != "ln_vision.weight"}, path)
    refused(r"1 trainable tensors are missing, first ln_vision.weight")
    path.unlink()
    refused(r"there is no file '.*model.safetensors'")


def test_files_of_something_else_are_not_replaced(saved, tiny_model, tmp_path):
    model = tiny_model("any")
    for name in ("config.json", "model.safetensors"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text('{"model_type": "bert"}')
        with pytest.raises(ConfigError, match=f"has a {name} that belongs to no model of this package: name another"):
            model.save_pretrained(folder, preprocess=PREPROCESS)
        assert [file.name for file in folder.iterdir()] == [name]
    (tmp_path / "README.md").write_text("a repository's")
    with pytest.raises(ConfigError, match="has a README.md that belongs to no model"):
        model.save_pretrained(tmp_path, preprocess=PREPROCESS, card="a model's")
    model.save_pretrained(saved, preprocess=PREPROCESS, card="another")
    assert (saved / "README.md").read_text() == "another" and (tmp_path / "README.md").read_text() == "a repository's"


def test_what_a_folder_does_not_say(saved, capsys):
    assert cli.main(["show", "--before", "--checkpoint", str(saved), str(saved / "config.json")]) == 2
    assert "does not say what its training started from; name the checkpoint" in capsys.readouterr().err


def test_what_cannot_be_saved(tiny_model, tmp_path):
    model = tiny_model("any")
    with pytest.raises(ConfigError, match=r"does not know its processors.*preprocess=\{'vis_processor'"):
        model.save_pretrained(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"dtype: 'fp8' is unknown; choose fp32, fp16, bf16"):
        model.save_pretrained(tmp_path / "saved", dtype="fp8", preprocess=PREPROCESS)
    (tmp_path / "file").touch()
    with pytest.raises(EvlgenError, match="could not write the folder .*file"):
        model.save_pretrained(tmp_path / "file", preprocess=PREPROCESS)
    with torch.no_grad():
        model.prompt_proj.bias[0] = 1e6
    with pytest.raises(WeightsError, match=r"prompt_proj.bias holds numbers that are not finite in fp16; choose bf16"):
        model.save_pretrained(tmp_path / "saved", dtype="fp16", preprocess=PREPROCESS)
    model.configuration = None
    with pytest.raises(ConfigError, match="was not built by from_config"):
        model.save_pretrained(tmp_path / "saved", preprocess=PREPROCESS)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
