"""The task: rewards, baselines, modes, and what it refuses; whole runs are in runners/test_self_critical_runs.py."""

import json
from types import SimpleNamespace

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from lavis_evlgen.datasets.image_text import ImageCaptionDataset
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.metrics.cider_d import CiderD
from lavis_evlgen.runners.trainable import SkipsEmptyBatches
from lavis_evlgen.tasks.self_critical import SelfCriticalTask, training_references

REFERENCES = {"a": ["a red chair", "a chair"], "b": ["two dogs run in a field"], "c": ["a man riding a wave", "a wave"]}


def setup(**run_cfg) -> SelfCriticalTask:
    task = SelfCriticalTask.setup_task(SimpleNamespace(run_cfg=OmegaConf.create({"max_len": 6, **run_cfg})))
    task.reward = CiderD(REFERENCES, task.end_token)
    return task


class Words(nn.Module):
    """Toy model: draws and decodes captions from a list, and remembers how it was called; nothing is computed."""

    def __init__(self, drawn: list[str], greedy: list[str], ended: list[bool] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.drawn, self.greedy = drawn, greedy
        self.ended = [True] * len(drawn) if ended is None else ended
        self.calls: list[tuple] = []

    def with_frozen_features(self, samples):
        return samples

    def soft_prompt(self, samples):
        return torch.zeros(len(samples["image"]), 1, 2)

    def sample(self, samples, num_samples, max_length, min_length, temperature):
        self.calls.append(("sample", self.training, torch.is_grad_enabled(), num_samples, max_length, temperature))
        return SimpleNamespace(ids=torch.zeros(len(self.drawn), 1), captions=self.drawn, ended=self.ended)

    def generate(self, samples, use_nucleus_sampling, num_beams, max_length, min_length, length_penalty=1.0):
        self.calls.append(("generate", self.training, torch.is_grad_enabled(), num_beams, length_penalty))
        return self.greedy

    def policy_loss(self, samples):
        raise AssertionError("the task must call the model itself, which may be wrapped")

    def forward(self, samples):
        self.calls.append(("forward", self.training, torch.is_grad_enabled()))
        self.samples = samples
        return {"loss": self.weight * samples.get("advantage", torch.ones(1)).sum()}


BATCH = {"image": torch.zeros(2, 3, 4, 4), "text_input": ["", ""], "image_id": ["a", "b"]}
DRAWN = ["a red chair", "a dog", "two dogs", "a chair"]


def test_advantage_is_reward_minus_the_greedy_captions(caplog):
    task, model = setup(scst_samples=2), Words(DRAWN, ["a chair", "dogs run"]).train()
    task.train_step(model, BATCH)
    score = CiderD(REFERENCES)
    reward = [*score("a", DRAWN[:2]), *score("b", DRAWN[2:])]
    baseline = [*score("a", ["a chair"]), *score("b", ["dogs run"])]
    expected = [reward[0] - baseline[0], reward[1] - baseline[0], reward[2] - baseline[1], reward[3] - baseline[1]]
    assert model.samples["advantage"].tolist() == pytest.approx(expected, abs=1e-5)
    assert expected[0] > 1 > 0 > expected[1]
    assert model.calls == [
        ("sample", False, False, 2, 6, 1.0), ("generate", False, False, 1, 1.0), ("forward", True, True)
    ]  # fmt: skip
    assert model.training and torch.is_grad_enabled()
    assert set(BATCH) == {"image", "text_input", "image_id"} and "soft_prompt" not in model.samples
    figures = task.train_metrics()
    assert figures["reward"] == pytest.approx(sum(reward) / 4) and figures["ended"] == 1.0
    assert figures["baseline_reward"] == pytest.approx(sum(baseline) / 2)
    assert figures["reward_gap"] == pytest.approx(sum(expected) / 4)
    assert task.train_metrics() == {}


def test_beam_baseline_decodes_as_the_evaluation_does():
    model = Words(DRAWN, ["a chair", "dogs run"]).eval()
    setup(scst_samples=2, scst_baseline="beam", num_beams=3, length_penalty=0.5).train_step(model, BATCH)
    assert model.calls[1] == ("generate", False, False, 3, 0.5)
    assert model.calls[2] == ("forward", False, True) and not model.training


def test_mean_baseline_is_that_of_the_other_draws():
    model = Words(["a red chair", "a dog", "a chair", "dogs", "two dogs", "a field"], [])
    task = setup(scst_samples=3, scst_baseline="mean")
    task.train_step(model, BATCH)
    reward = CiderD(REFERENCES)("a", model.drawn[:3])
    expected = [reward[n] - (sum(reward) - reward[n]) / 2 for n in range(3)]
    assert model.samples["advantage"][:3].tolist() == pytest.approx(expected, abs=1e-5)
    assert [call[0] for call in model.calls] == ["sample", "forward"]
    assert task.train_metrics()["reward_gap"] == pytest.approx(0.0, abs=1e-5)


def test_a_caption_that_was_cut_off_earns_no_end():
    advantages = []
    for end_token, ended in ((True, True), (True, False), (False, False)):
        model = Words(["a red chair", "two dogs"], ["", ""], ended=[ended, ended])
        setup(scst_samples=1, scst_end_token=end_token).train_step(model, BATCH)
        advantages.append(float(model.samples["advantage"][0]))
    assert advantages[1] < advantages[0] - 0.2
    assert advantages[2] == pytest.approx(CiderD(REFERENCES, end_token=False)("a", ["a red chair"])[0], abs=1e-5)


def test_prompt_temperature_and_lengths_reach_the_model():
    model = Words(DRAWN, ["", ""])
    setup(scst_samples=2, scst_temperature=0.5, min_len=3, prompt="a photo of").train_step(model, BATCH)
    assert model.calls[0][-1] == 0.5
    assert {key: model.samples[key] for key in ("prompt", "temperature", "min_length")} == {
        "prompt": "a photo of", "temperature": 0.5, "min_length": 3
    }  # fmt: skip


def test_mode_is_restored_after_an_error():
    model = Words(DRAWN, ["", ""]).train()
    with pytest.raises(DataError, match="no reference captions of image_id 'unknown'"):
        setup(scst_samples=2).train_step(model, {**BATCH, "image_id": ["unknown", "a"]})
    assert model.training and torch.is_grad_enabled()


def test_held_out_loss_is_cross_entropy():
    model = Words(DRAWN, [])
    with torch.no_grad():
        setup().train_step(model, BATCH)
    assert [call[0] for call in model.calls] == ["forward"] and "sampled_ids" not in model.samples


def test_a_rank_without_samples_gives_a_zero_loss():
    model = SkipsEmptyBatches(Words(DRAWN, []))
    loss = setup().train_step(model, {})
    loss.backward()
    assert loss.item() == 0.0 and model.model.weight.grad.item() == 0.0 and not model.model.calls


def test_loss_of_a_real_model(tiny_model, batch):
    """With dropout in the connector off, the loss is the advantage times the likelihood that the model tells."""
    model = tiny_model("opt").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    task = setup(scst_samples=3)
    torch.manual_seed(5)
    loss = task.train_step(model, batch)
    torch.manual_seed(5)
    drawn = model.sample(batch, 3, max_length=6)
    baseline = model.generate(batch, num_beams=1, max_length=6)
    rewards = [task.reward(i, drawn.captions[3 * n : 3 * n + 3], drawn.ended[3 * n : 3 * n + 3])
               for n, i in enumerate("abc")]  # fmt: skip
    advantage = torch.tensor([r - task.reward(i, [baseline[n]])[0] for n, i in enumerate("abc") for r in rewards[n]])
    prompt_embeds = model.soft_prompt(batch).repeat_interleave(3, dim=0)
    expected = -(advantage * model.language.log_likelihood(prompt_embeds, drawn.ids)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


def test_training_raises_the_reward(tiny_model):
    """Three pictures, after a little cross-entropy. A larger head lets the soft prompt move the language model."""
    torch.manual_seed(2)
    model = tiny_model("any", seed=2, merged_skip=True).train()
    model.language.model.lm_head.weight.mul_(20)
    references = {
        "a": ["a o t", "o a the cat"],
        "b": ["of the is", "the of the cat"],
        "c": ["on in car", "in on the cat"],
    }
    batch = {
        "image": torch.randn(3, 3, 1, 1).expand(3, 3, 56, 56).contiguous(),
        "text_input": [first for first, _ in references.values()],
        "image_id": list(references),
    }
    task = setup(max_len=5, scst_samples=16)
    task.reward = CiderD(references)

    def train(steps: int, lr: float, loss_of) -> None:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()

    train(30, 0.005, lambda: model(batch)["loss"])
    windows = []
    for _ in range(4):
        train(10, 0.002, lambda: task.train_step(model, batch))
        windows.append(task.train_metrics()["reward"])
    assert windows[3] > 1.2 * windows[0] > 1.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_trained_tensor_gets_its_gradient_under_autocast(tiny_model, batch, dtype):
    """Autocast keeps converted weights; those that the draws made know no gradient."""
    model = tiny_model("opt").train()
    task = setup(scst_samples=2)
    task.reward = lambda image_id, captions, ended=None: [float(len(caption)) for caption in captions]
    with torch.autocast("cpu", dtype):
        loss = task.train_step(model, batch)
    loss.backward()
    assert loss.dtype is torch.float32 and loss.item() != 0
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("temporal", ["contextualizer", "mean", "concat"])
def test_clips(tiny_model, batch, temporal):
    model = tiny_model("video", temporal=temporal, num_frames=2).train()
    clips = torch.stack([batch["image"], batch["image"].flip(-1)], dim=2)
    samples = {"video": clips, "text_input": batch["text_input"], "image_id": batch["image_id"]}
    task = setup(scst_samples=2)
    task.reward = lambda image_id, captions, ended=None: [float(len(caption)) for caption in captions]
    task.train_step(model, samples).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    alphas = [p.grad.abs().sum() for name, p in model.named_parameters() if name.endswith(".alpha")]
    assert len(alphas) == (2 if temporal == "contextualizer" else 0) and all(alphas)
    assert set(task.train_metrics()) == {"reward", "baseline_reward", "reward_gap", "ended"}


def test_weights_that_are_not_finite_make_a_loss_that_is_not(tiny_model, batch):
    model = tiny_model("opt")
    with torch.no_grad():
        model.prompt_proj.bias[0] = float("nan")
    assert not torch.isfinite(setup(scst_samples=2).train_step(model, batch))


def dataset(folder, name: str, records: list[dict]) -> ImageCaptionDataset:
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    (folder / f"{name}.json").write_text(json.dumps(records))
    return ImageCaptionDataset(None, None, str(folder), [str(folder / f"{name}.json")])


def test_references_of_the_training_splits(tmp_path):
    first = dataset(tmp_path, "first", [{"image": "x.png", "image_id": 1, "caption": ["A cat.", "a pet"]}])
    second = dataset(tmp_path, "second", [{"image": "x.png", "image_id": 2, "caption": "a dog"}])
    listed = SimpleNamespace(ground_truth=lambda: {"3": ["a bird"]})
    datasets = {"ours": {"train": first, "more": second, "val": None}, "theirs": {"train": listed}}
    assert training_references(datasets, ["train", "more"]) == {
        "1": ["A cat.", "a pet"], "2": ["a dog"], "3": ["a bird"]
    }  # fmt: skip
    assert training_references(datasets, ["train"]) == {"1": ["A cat.", "a pet"], "3": ["a bird"]}
    with pytest.raises(DataError, match=r"datasets.other and datasets.ours both have an image_id '1'"):
        training_references({**datasets, "other": {"train": first}}, ["train"])
    with pytest.raises(ConfigError, match=r"datasets.shards \(list\) cannot list its captions"):
        training_references({"shards": {"train": []}}, ["train"])


@pytest.mark.parametrize(
    ("run_cfg", "message"),
    [
        ({"scst_baseline": "greed"}, "'greed' is unknown; did you mean 'greedy'"),
        ({"scst_samples": 0}, "scst_samples: 0 is too few"),
        ({"scst_samples": 1, "scst_baseline": "mean"}, "scst_samples: 1 is too few, mean needs at least 2"),
        ({"scst_temperature": 0}, "scst_temperature must be above 0"),
    ],
)
def test_wrong_run_keys(run_cfg, message):
    with pytest.raises(ConfigError, match=message):
        setup(**run_cfg)


def test_a_model_without_the_interface_is_refused():
    with pytest.raises(ConfigError, match="Linear cannot sample captions and score them"):
        setup().train_step(nn.Linear(2, 2), BATCH)
    with pytest.raises(ConfigError, match="a batch has no image_id"):
        setup().train_step(Words(DRAWN, []), {"image": BATCH["image"]})
    bare = SelfCriticalTask()
    with pytest.raises(ConfigError, match="build_datasets has not been called"):
        bare.train_step(Words(DRAWN * 2, ["", ""]), BATCH)


def test_registered_with_its_keys():
    assert registry.get_task_class("evlgen_scst") is SelfCriticalTask
    assert {"num_beams", "scst_samples", "scst_baseline"} <= set(SelfCriticalTask.RUN_KEYS)
