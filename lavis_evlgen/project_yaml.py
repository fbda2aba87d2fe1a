"""The text of a configuration for somebody's own data, with every number that depends on the data or the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from lavis_evlgen.asking import QUESTION_PROMPT
from lavis_evlgen.datasets.records import Kind

IMAGENET = "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
HALVES = "mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]"
CACHED_PICTURES = 5000  # up to so many the frozen ViT's features are kept on disk, 0.2 MB each
EMBEDDED_VIT, EMBEDDED_LLM = "hf:embedded:dinov2-small", "embedded:smollm2-135m"


@dataclass(frozen=True)
class Project:
    """What a configuration is written for.

    Attributes:
        name: of its output folder.
        questions: answer questions, instead of captioning.
        folder: where the pictures or clips are.
        train, val: annotation files.
        items, pictures: training items (captions or questions) and the pictures or clips that they are about.
        longest: tokens of nearly the longest text, or 0 where they were not counted.
        vit, llm: names or folders; None takes the embedded weights.
        device: cpu or cuda.
        precision: fp32, bf16 or fp16.
    """

    name: str
    kind: Kind
    questions: bool
    folder: str
    train: Sequence[str]
    val: Sequence[str]
    items: int
    pictures: int
    longest: int = 0
    vit: str | None = None
    llm: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    num_workers: int = 0

    @property
    def embedded(self) -> bool:
        return self.vit is None and self.llm is None

    @property
    def builder(self) -> str:
        if self.kind == "video":
            return "video_caption"
        return "visual_question_answer" if self.questions else "image_caption"

    @property
    def cached(self) -> bool:
        """Whether features are computed once: for few pictures, which then have no augmentation."""
        return self.kind == "image" and self.device == "cpu" and self.pictures <= CACHED_PICTURES

    @property
    def batch_size(self) -> int:
        return 8 if self.device == "cpu" else 32

    @property
    def max_iters(self) -> int:
        """About ten passes over the data, within what the device can do in an hour or a night."""
        least, most = (200, 2000) if self.device == "cpu" else (500, 20_000)
        return min(max(math.ceil(10 * self.items / self.batch_size), least), most)

    def yaml(self, command: str) -> str:
        """The whole file; ``command`` is its first line, how it is run."""
        shown = "".join(each if each.isprintable() else "?" for each in command)  # a line break would end the comment
        return "\n".join([f"# {shown}", "", *self._model(), "", *self._data(), "", *self._run(), ""])

    def _model(self) -> list[str]:
        arch = "evlgen_video" if self.kind == "video" else "evlgen"
        text_length = f"  max_txt_len: {self.max_txt_len}  # tokens of a text; longer ones are cut off"
        if self.embedded:
            return [
                "model:",
                f"  arch: {arch}",
                "  model_type: demo  # DINOv2 ViT-S/14 and SmolLM2-135M, which come with pip packages",
                text_length,
            ]
        precision = "fp32" if self.device == "cpu" else self.precision
        return [
            "model:",
            f"  arch: {arch}",
            "  model_type: custom",
            f"  vit_model: {_text(self.vit or EMBEDDED_VIT)}",
            f"  vit_precision: {precision}",
            f"  llm_model: {_text(self.llm or EMBEDDED_LLM)}",
            f"  llm_precision: {precision}",
            *(['  llm_end: "\\n"'] if self.llm is None else []),
            "  bert_model: embedded:minilm  # the connector's start; bert-base-uncased is the paper's, with tome_r: 19",
            "  tome_r: 40  # tokens merged in each of its 6 layers: 257 become 29",
            text_length,
        ]

    @property
    def max_txt_len(self) -> int:
        return max(32, min(256, 8 * math.ceil((self.longest + 2) / 8)))

    def _data(self) -> list[str]:
        folder_key = "videos" if self.kind == "video" else "images"
        text = "blip_question" if self.questions else "blip_caption"
        train, evaluated = self._processors()
        return [
            "datasets:",
            f"  {self.builder}:",
            f"    {folder_key}: {_text(self.folder)}",
            "    annotations:",
            f"      train: {_texts(self.train)}",
            f"      val: {_texts(self.val)}",
            "    vis_processor:" + ("  # no augmentation: the frozen ViT's features are computed once" * self.cached),
            f"      train: {{{train}}}",
            f"      eval: {{{evaluated}}}",
            "    text_processor:",
            f"      train: {{name: {text}}}",
            f"      eval: {{name: {text}}}",
        ]

    def _processors(self) -> tuple[str, str]:
        vit = (self.vit or EMBEDDED_VIT).lower()
        normal = IMAGENET if "dino" in vit else HALVES if "siglip" in vit else ""
        rest = f", {normal}" if normal else ""
        if self.kind == "video":
            size = 112 if self.embedded else 224
            train, evaluated = (
                f"name: evlgen_video_{mode}, image_size: {size}, num_frames: 4{rest}" for mode in ("train", "eval")
            )
            return train, evaluated
        evaluated = f"name: blip_image_eval, image_size: 224{rest}"
        return (evaluated if self.cached else f"name: blip2_image_train, image_size: 224{rest}"), evaluated

    def _run(self) -> list[str]:
        steps = self.max_iters
        # the embedded model has its own recipe (docs/results.md), others the paper's
        rates = ("1e-2", "1e-3", "1e-4") if self.embedded else ("1e-4", "1e-5", "1e-6")
        length = 10 if self.questions else max(20, min(64, self.longest))
        lines = [
            "run:",
            "  runner: runner_evlgen",
            f"  task: {'evlgen_vqa' if self.questions else 'captioning'}",
            "",
            f"  max_iters: {steps}  # {steps * self.batch_size / self.items:.1f} passes over {self.items:,} items",
            f"  iters_per_inner_epoch: {math.ceil(steps / 4)}  # checkpoint and validation",
            f"  init_lr: {rates[0]}",
            f"  min_lr: {rates[1]}",
            f"  warmup_lr: {rates[2]}",
            f"  warmup_steps: {min(2000, math.ceil(steps / 25))}",
            *(["  beta2: 0.95"] if self.embedded else []),
            "  max_grad_norm: 1.0",
            f"  batch_size_train: {self.batch_size}",
            f"  batch_size_eval: {2 * self.batch_size}",
            f"  num_workers: {self.num_workers}",
            f"  precision: {self.precision}",
            *([f"  feature_cache: {_text(f'outputs/{self.name}/features')}"] if self.cached else []),
            "",
            "  # held-out loss with right and with shuffled pictures: no gap means that pictures are ignored",
            f"  health_freq: {math.ceil(steps / 10)}",
            "  health_batches: 4",
            f"  log_freq: {max(1, steps // 100)}",
            "",
            *([f'  prompt: "{QUESTION_PROMPT}"'] if self.questions else []),
            f"  max_len: {length}  # tokens of {'an answer' if self.questions else 'a caption'}",
            "  min_len: 1",
            f"  num_beams: {1 if self.device == 'cpu' else 5}",
            "",
            "  seed: 42",
            f"  output_dir: {_text(f'outputs/{self.name}')}",
            "  auto_resume: true  # the same command goes on where it was stopped",
            "  evaluate: false",
            "  train_splits: [train]",
            "  valid_splits: [val]",
            "",
            f"  device: {self.device}",
        ]
        return lines


def _text(value: str | Path) -> str:
    """A string as yaml and OmegaConf read it, in quotes where it needs them."""
    plain = str(value)
    if re.fullmatch(r"[\w./][\w./-]*", plain) and OmegaConf.create(f"[{plain}]")[0] == plain:
        return plain
    return yaml.safe_dump(plain, default_style='"', allow_unicode=True, width=math.inf).strip()


def _texts(values: Sequence[str]) -> str:
    return _text(values[0]) if len(values) == 1 else f"[{', '.join(map(_text, values))}]"
