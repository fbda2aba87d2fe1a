"""The command that tries a trained model out."""

from __future__ import annotations

import shlex
from pathlib import Path

from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.asking import QUESTION_PROMPT
from lavis_evlgen.reports.run_files import RunFiles


def command_of_run(run: RunFiles) -> str:
    """By model type where its yaml names the run's weights, else by the weights, which carry their configuration."""
    model, prompt = run.config.model, run.question_prompt
    types = registry.get_model_class(model.arch).PRETRAINED_MODEL_CONFIG_DICT
    default = types.get(model.get("model_type"))
    pretrained = OmegaConf.load(default).model.get("pretrained") if default else None
    if pretrained and Path(pretrained).absolute() == run.weights.absolute():
        how = f"--model {model.arch} --model-type {model.model_type}"
        if prompt not in (None, QUESTION_PROMPT):
            how += f" --prompt {shlex.quote(prompt)}"
    else:
        how = f"--checkpoint {run.weights}"
    return command(how, run.is_of_clips, prompt is not None)


def command(model: str, video: bool, asks: bool) -> str:
    """A line for the shell.

    Args:
        model: the options that name the model.
        video: whether it takes clips.
        asks: whether it answers questions.
    """
    what = "answer --question 'what is it?'" if asks else "caption"
    return f"python -m lavis_evlgen.cli {what} {model} {'clip.mp4' if video else 'photo.jpg'}"
