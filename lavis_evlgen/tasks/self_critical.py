"""Self-critical sequence training: captions that the model draws are rewarded by CIDEr-D (Rennie et al. 2017)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError, DataError, nearest
from lavis_evlgen.metrics.cider_d import CiderD
from lavis_evlgen.models.self_critical import Sampled
from lavis_evlgen.registration_tools import register
from lavis_evlgen.runners.distributed import summed
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.trainable import SkipsEmptyBatches, batch_size
from lavis_evlgen.tasks.captioning import CaptioningTask, check_arguments

BASELINES = ("greedy", "beam", "mean")


@register("task", "evlgen_scst")
class SelfCriticalTask(CaptioningTask):
    """Captioning whose training follows the reward; for a model that cross-entropy has trained before.

    In a step, each picture gets ``scst_samples`` drawn captions. The loss makes those likelier that score above the
    baseline, and the others less likely. Evaluation is :class:`CaptioningTask`'s.
    """

    RUN_KEYS = (
        *CaptioningTask.RUN_KEYS,
        "scst_samples",
        "scst_baseline",
        "scst_temperature",
        "scst_end_token",
    )

    def __init__(
        self,
        *args: Any,
        scst_samples: int = 4,
        scst_baseline: str = "greedy",
        scst_temperature: float = 1.0,
        scst_end_token: bool = True,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            scst_samples: captions drawn for each picture, with the run's ``max_len`` and ``min_len``.
            scst_baseline: what a draw must beat: the model's ``greedy`` caption (the paper's), its caption by ``beam``
                search as the run section says, or the ``mean`` of the picture's other draws, which decodes nothing.
            scst_temperature: of the draws; below 1 they stay closer to what the model holds likely.
            scst_end_token: see :class:`CiderD`.
        """
        super().__init__(*args, **kwargs)
        if scst_baseline not in BASELINES:
            raise ConfigError(f"run.scst_baseline: {scst_baseline!r} is unknown{nearest(scst_baseline, BASELINES)}")
        least = 2 if scst_baseline == "mean" else 1
        if scst_samples < least:
            raise ConfigError(f"run.scst_samples: {scst_samples} is too few, {scst_baseline} needs at least {least}")
        if scst_temperature <= 0:
            raise ConfigError(f"run.scst_temperature must be above 0, not {scst_temperature}")
        self.samples = int(scst_samples)
        self.baseline = scst_baseline
        self.policy = {"temperature": scst_temperature, "min_length": self.generation["min_length"]}
        self.end_token = scst_end_token
        self.reward: CiderD | None = None
        self._device = torch.device("cpu")
        self._sums = [0.0] * 4

    def build_datasets(self, cfg: Any) -> dict[str, Any]:
        """The data sets; the captions of the training splits become the rewards' references and document frequencies.

        Raises:
            ConfigError: a training data set has no references. DataError: two data sets share image ids.
        """
        datasets = super().build_datasets(cfg)
        if not self.evaluate:
            splits = RunSettings.from_config(cfg.run_cfg).train_splits
            self.reward = CiderD(training_references(datasets, splits), self.end_token)
        return datasets

    def build_model(self, cfg: Any) -> Any:
        model = super().build_model(cfg)
        return model if self.evaluate else _policy(model)

    def train_step(self, model: nn.Module, samples: dict[str, Any]) -> Tensor:
        """The policy-gradient loss; without gradients (held-out loss) the cross-entropy."""
        self._device = next(model.parameters()).device
        if not torch.is_grad_enabled() or not batch_size(samples):
            return super().train_step(model, samples)
        if "image_id" not in samples:
            raise ConfigError("run.task evlgen_scst: a batch has no image_id, by which its references are found")
        policy = _policy(model)
        if self.prompt is not None:
            samples = {**samples, "prompt": self.prompt}
        with _deciding(policy):
            samples = policy.with_frozen_features(samples)
            seen = {**samples, "soft_prompt": policy.soft_prompt(samples)}
            drawn = policy.sample(seen, self.samples, self.generation["max_length"], **self.policy)
            advantage = self._advantage(policy, seen, drawn)
        played = {**samples, **self.policy, "sampled_ids": drawn.ids, "advantage": advantage}
        return super().train_step(model, played)

    def train_metrics(self) -> dict[str, float]:
        """Means over all that was drawn on all ranks since the last call: reward, baseline, their difference, and the
        share of captions that ended of themselves. Every rank must call it."""
        reward, baseline, ended, count = summed(self._sums, self._device)
        self._sums = [0.0] * 4
        if not count:
            return {}
        means = {"reward": reward / count, "baseline_reward": baseline / count, "ended": ended / count}
        return means | {"reward_gap": means["reward"] - means["baseline_reward"]}

    def _advantage(self, policy: Any, samples: dict[str, Any], drawn: Sampled) -> Tensor:
        """Reward minus baseline of every drawn caption, [B * scst_samples]."""
        ids = [str(image_id) for image_id in samples["image_id"]]
        rewards = torch.tensor(self._rewards(ids, drawn.captions, drawn.ended)).view(len(ids), self.samples)
        if self.baseline == "mean":
            baselines = (rewards.sum(dim=1, keepdim=True) - rewards) / (self.samples - 1)
        else:
            # counted as ended: a caption cut off at max_len is overrated, which moves no gradient on average
            baselines = torch.tensor(self._rewards(ids, self._decoded(policy, samples)))[:, None].expand_as(rewards)
        found = [float(rewards.sum()), float(baselines.sum()), float(sum(drawn.ended)), float(rewards.numel())]
        self._sums = [a + b for a, b in zip(self._sums, found, strict=True)]
        return (rewards - baselines).flatten().to(drawn.ids.device)

    def _decoded(self, policy: Any, samples: dict[str, Any]) -> list[str]:
        """The captions that an evaluation would give, by beams or greedily."""
        arguments = {**self.generation, "use_nucleus_sampling": False}
        if self.baseline == "greedy":
            arguments["num_beams"] = 1
        check_arguments(policy, arguments)
        return policy.generate(samples, **arguments)

    def _rewards(self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool] | None = None) -> list[float]:
        """CIDEr-D of captions of which every picture has equally many."""
        if self.reward is None:
            raise ConfigError("run.task evlgen_scst: build_datasets has not been called, so there is no reward")
        each = len(captions) // len(ids)
        scores = []
        for number, image_id in enumerate(ids):
            own = slice(number * each, (number + 1) * each)
            scores += self.reward(image_id, captions[own], ended and ended[own])
        return scores


def training_references(datasets: Mapping[str, Mapping[str, Any]], splits: Sequence[str]) -> dict[str, list[str]]:
    """Reference captions of the training splits by image id.

    Raises:
        ConfigError: a data set cannot give them. DataError: two data sets share image ids, so that a batch does not
            tell whose references are meant.
    """
    owners: dict[str, str] = {}
    references: dict[str, list[str]] = {}
    for name, of in datasets.items():
        for dataset in [of[split] for split in splits if split in of]:
            for image_id, captions in _references(dataset, name):
                if owners.setdefault(image_id, name) != name:
                    raise DataError(
                        f"datasets.{name} and datasets.{owners[image_id]} both have an image_id {image_id!r}: "
                        "evlgen_scst finds references by image_id, so give them different ones in the annotations"
                    )
                references.setdefault(image_id, []).extend(captions)
    return references


def _references(dataset: Any, name: str) -> Iterator[tuple[str, Sequence[str]]]:
    if hasattr(dataset, "ground_truth"):
        yield from dataset.ground_truth().items()
    elif hasattr(dataset, "records"):
        yield from ((record.image_id, record.captions) for record in dataset.records)
    else:
        raise ConfigError(
            f"run.task evlgen_scst: datasets.{name} ({type(dataset).__name__}) cannot list its captions, as a stream "
            "cannot; use image_caption, video_caption or another builder of this package that reads annotation files"
        )


def _policy(model: nn.Module) -> Any:
    """The model itself, out of what wraps it for several processes."""
    inner: Any = getattr(model, "module", model)
    inner = inner.model if isinstance(inner, SkipsEmptyBatches) else inner
    if not (hasattr(inner, "sample") and hasattr(inner, "policy_loss")):
        raise ConfigError(
            f"run.task evlgen_scst: {type(inner).__name__} cannot sample captions and score them; use one of "
            "this package's models, e.g. arch: evlgen_opt, evlgen_vicuna, evlgen, evlgen_video"
        )
    return inner


@contextmanager
def _deciding(model: nn.Module) -> Iterator[None]:
    """Inside the block the model runs without dropout and gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
        # older versions of torch would use the weights that autocast converted here again, and give them no gradient
        torch.clear_autocast_cache()
