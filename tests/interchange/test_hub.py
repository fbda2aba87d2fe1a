"""Models by their names on a hub: huggingface_hub's own cache, and its own client against a fake on this machine."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from hub_fake import Hub, serving
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http as http
from lavis.common.registry import registry
from tiny_processors import PREPROCESS

import lavis_evlgen
from lavis_evlgen import cli
from lavis_evlgen.errors import ConfigError, EvlgenError, WeightsError
from lavis_evlgen.interchange.names import is_hub_name, portable
from lavis_evlgen.models.evlgen import EVLGen

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def online(cache, monkeypatch):
    """A hub that huggingface_hub takes for its own, though the tests are offline."""
    hub = Hub()
    hub.token = "hf_secret"
    with serving(hub) as address:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        http.reset_sessions()
        yield hub
    http.reset_sessions()


def put_into_cache(cache, folder, name="someone/captioner"):
    root = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(COMMIT)
    return root / "snapshots" / COMMIT


def test_a_name_on_the_hub_is_found_in_the_cache(saved, cache, batch, tiny_model, parity_dir):
    put_into_cache(cache, saved)
    llama = {"llm_model": str(parity_dir / "tiny_llama")}
    expected = tiny_model("any").generate(batch, max_length=5)
    for load in (EVLGen.from_pretrained, registry.get_model_class("evlgen").from_pretrained):
        torch.manual_seed(0)
        assert load("someone/captioner", **llama).generate(batch, max_length=5) == expected
    with pytest.raises(WeightsError, match=r"'someone/captioner' is no folder here .*not in the Hugging Face cache"):
        EVLGen.from_pretrained("someone/captioner", revision="v2", **llama)


def test_a_folder_comes_before_the_hub(saved, cache, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "someone/captioner")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert EVLGen.from_pretrained("someone/captioner").vision.image_size == 56


def test_a_hub_cannot_name_paths_of_this_machine(saved, cache):
    put_into_cache(cache, saved)  # its llm_model is the absolute path of the tiny one, which is here
    with pytest.raises(
        ConfigError, match=r"model.llm_model is the path '/.*tiny_llama', and paths are not taken from a hub"
    ):
        EVLGen.from_pretrained("someone/captioner")
    for name in ("../../etc", "/etc/x", "~/x", "a/../../b", "a/b/c", "..", "a\\b", ".hidden/x", "a/..", ""):
        assert not is_hub_name(name), name
    for name in ("facebook/opt-2.7b", "gpt2", "embedded:smollm2-135m", "eva_clip_g", "lmsys/vicuna-7b-v1.1"):
        assert is_hub_name(name), name


def test_vit_weights_are_never_taken_from_a_hub(saved, cache, parity_dir):
    folder = put_into_cache(cache, saved)
    config = json.loads((folder / "config.json").read_text())
    config["model"]["vit_weights"] = "weights.pth"  # looks like a name, but is read as a path
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"model.vit_weights is the path 'weights.pth', and paths are not taken"):
        EVLGen.from_pretrained("someone/captioner", llm_model=str(parity_dir / "tiny_llama"))


def test_names_that_lead_nowhere(cache, tmp_path, capsys):
    (tmp_path / "file.txt").touch()
    with pytest.raises(ConfigError, match=r"file.txt is a file: name the folder that holds config.json"):
        EVLGen.from_pretrained(tmp_path / "file.txt")
    with pytest.raises(ConfigError, match="there is no folder gone"):
        EVLGen.from_pretrained("gone")
    with pytest.raises(ConfigError, match="there is no folder ../../x"):
        EVLGen.from_pretrained("../../x")
    with pytest.raises(ConfigError, match="there is no trained model 'embedded:dmo'; did you mean 'embedded:demo'"):
        EVLGen.from_pretrained("embedded:dmo")
    with pytest.raises(WeightsError, match="'someone/gone' is no folder here"):
        lavis_evlgen.load_model_and_preprocess("evlgen", "someone/gone")
    assert cli.main(["caption", "--checkpoint", "someone/gone", "x.png"]) == 2
    assert "'someone/gone' is no folder here" in capsys.readouterr().err


def test_folders_in_caches_get_their_names_back(tmp_path, monkeypatch):
    monkeypatch.setenv("EVLGEN_CACHE", str(tmp_path))
    snapshot = f"{tmp_path}/hub/models--facebook--opt-2.7b/snapshots/{COMMIT}"
    assert portable(snapshot) == "facebook/opt-2.7b" and portable(f"hf:{snapshot}") == "hf:facebook/opt-2.7b"
    assert portable(f"hf:{tmp_path}/dinov2-small-0.1.1-f1") == "hf:embedded:dinov2-small"
    for name in ("/data/opt", "eva_clip_g", "hf:facebook/dinov2-base", f"{tmp_path}/mine"):
        assert portable(name) == name


def test_pushed_and_loaded_again_over_a_local_fake_of_the_hub(online, tiny_model, batch, parity_dir):
    """The real client of huggingface_hub; the fake takes the place of its server."""
    model = tiny_model("any")
    url = model.push_to_hub("someone/captioner", preprocess=PREPROCESS)
    assert url.endswith(f"/someone/captioner/commit/{online.commit('someone/captioner')}")
    assert sorted(online.repositories["someone/captioner"]) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip
    card = online.repositories["someone/captioner"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: lavis_evlgen\n") and "# captioner\n" in card
    online.repositories["someone/captioner"]["evil.pth"] = b"not fetched"
    torch.manual_seed(0)
    loaded = EVLGen.from_pretrained("someone/captioner", llm_model=str(parity_dir / "tiny_llama"))
    assert loaded.generate(batch, max_length=5) == model.generate(batch, max_length=5)
    assert not any("evil" in request for request in online.asked)


def test_a_hub_that_refuses_is_said_over_a_local_fake(online, tiny_model):
    with pytest.raises(EvlgenError, match=r"could not upload to someone/captioner .*log in with huggingface-cli login"):
        tiny_model("any").push_to_hub("someone/captioner", token="wrong", preprocess=PREPROCESS)
    assert online.repositories == {}
    with pytest.raises(WeightsError, match=r"'someone/gone' is no folder here"):
        EVLGen.from_pretrained("someone/gone")
