"""`save_pretrained`, `from_pretrained` and `push_to_hub` of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lavis_evlgen.errors import ConfigError


class Interchange:
    """Mixin for registered models whose `from_config` sets `configuration`. It comes before LAVIS's class.

    Attributes:
        configuration: the model keys that the model was built by.
        preprocess: the sections `vis_processor` and `text_processor` of its model type, run or folder; None for a
            model that none of these built.
        question_prompt: how its run asked questions, {} being the question; None if it asked none, or is not known.
    """

    configuration: Mapping[str, Any] | None = None
    preprocess: Mapping[str, Any] | None = None
    question_prompt: str | None = None

    def trainable_state_dict(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str = "fp32",
        preprocess: Mapping[str, Any] | None = None,
        card: str | None = None,
    ) -> Path:
        """Write a folder that :meth:`from_pretrained` reads: weights, config.json, processors, a model card.

        The weights are those that train; frozen parts are named in config.json.

        Args:
            folder: made if it is not there; files of these names in it are replaced, but README.md only by `card`.
            dtype: of the weights in the file: fp32, fp16 or bf16.
            preprocess: the processors, in place of the model's own.
            card: the text of README.md.

        Returns:
            The folder.

        Raises:
            ConfigError: the model knows no processors, was not built by a configuration, or an unknown dtype.
            WeightsError: a weight is not finite in this dtype. EvlgenError: the folder cannot be written.
        """
        from lavis_evlgen.interchange.card import model_card
        from lavis_evlgen.interchange.files import CARD, ModelFiles
        from lavis_evlgen.interchange.folder import write_folder
        from lavis_evlgen.interchange.records import Records

        preprocess = preprocess or self.preprocess
        if self.configuration is None:
            raise ConfigError(
                f"this {type(self).__name__} was not built by from_config, so no config.json can describe it"
            )
        if preprocess is None:
            raise ConfigError(
                "the model does not know its processors, since no model type, run or folder built it: give them, for "
                "example preprocess={'vis_processor': {'eval': {'name': 'blip_image_eval', 'image_size': 224}}}"
            )
        files = ModelFiles.of(type(self), self.configuration, preprocess, self.question_prompt)
        weights = self.trainable_state_dict()
        if card is None and not (Path(folder).expanduser() / CARD).exists():
            card = model_card(Path(folder).name, files, weights, dtype, Records(question_prompt=self.question_prompt))
        return write_folder(folder, files, weights, dtype, card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: str = "fp32",
        preprocess: Mapping[str, Any] | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload the model",
    ) -> str:
        """Make a repository of a Hugging Face hub, if it is not there, and upload what `save_pretrained` writes.

        Args:
            repo_id: OWNER/NAME.
            dtype: see :meth:`save_pretrained`.
            preprocess: see :meth:`save_pretrained`.
            private: whether a new repository is; None takes the owner's usual.
            token: None takes the one of `huggingface-cli login` or $HF_TOKEN.

        Returns:
            The address of the commit.

        Raises:
            EvlgenError: the hub cannot be reached, or refuses; and as :meth:`save_pretrained`.
        """
        from lavis_evlgen.interchange.hub import upload

        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary, repo_id.split("/")[-1]), dtype=dtype, preprocess=preprocess)
            return upload(folder, repo_id, private, token, commit_message)

    @classmethod
    def from_pretrained(cls: Any, model_type: str | Path, *, revision: str | None = None, **overrides: Any) -> Any:
        """The model of a folder that :meth:`save_pretrained` wrote, in eval mode.

        Args:
            model_type: LAVIS's word. Here the folder, ``embedded:NAME``, or OWNER/NAME on a Hugging Face hub; a folder
                that is there comes first.
            revision: branch, tag or commit on the hub.
            overrides: model keys in place of config.json's, such as ``llm_model="folder"``.

        Raises:
            ConfigError: a file of the folder is missing or wrong, or the model is none of this class.
            WeightsError: weights, or a frozen part, are missing, damaged or do not fit.
        """
        from lavis_evlgen.interchange.folder import load_folder
        from lavis_evlgen.interchange.hub import find

        folder, from_hub = find(str(model_type), revision)
        return load_folder(cls, folder, from_hub, overrides)
