"""BLIP-2's first stage: LAVIS's own Q-Former model with its three losses, on our vision towers and any BERT.

The losses are computed by LAVIS's `Blip2Qformer.forward` itself (BLIP-2, section 3.2); this file builds its parts.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from lavis.models.base_model import BaseModel
from lavis.models.blip2_models.blip2 import LayerNorm
from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
from lavis.models.blip_models.blip_outputs import BlipOutputFeatures
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.interchange.pretrained import Interchange
from lavis_evlgen.lavis_replacements import QFormerLM, processes
from lavis_evlgen.models.checkpoints import LoadsCheckpoints
from lavis_evlgen.models.config import ModelConfig, check_keys
from lavis_evlgen.models.connectors import bert_config, load_bert
from lavis_evlgen.models.hub import load_pretrained
from lavis_evlgen.models.qformer import qformer_config, with_query_halves
from lavis_evlgen.models.vision import VisionTower, build_vision_tower

_KEYS = """
    arch model_type vit_model vit_config vit_weights image_size drop_path_rate use_grad_checkpoint vit_precision
    freeze_vit bert_model connector_config num_layers num_query_token embed_dim max_txt_len
    load_pretrained pretrained load_finetuned finetuned
"""
KEYS = frozenset(_KEYS.split())


class Blip2Stage1(Interchange, LoadsCheckpoints, Blip2Qformer):
    """Contrast, matching and captioning of images and texts by a Q-Former with its text half, without any LLM.

    Trainable: `ln_vision`, `query_tokens`, `Qformer`, the two projections, `itm_head` and `temp`, named as in LAVIS,
    whose checkpoints load unchanged. Stage 2 starts from the weights by `model.connector_weights`.

    Args:
        vision: images [B, 3, H, W] to tokens [B, L, D_v].
        qformer: LAVIS's Q-Former of width D with its language head, its vocabulary grown to the tokenizer's.
        tokenizer: the BERT's, with the bos token "[DEC]".
        embed_dim: width of the space in which images and texts are contrasted.
        max_txt_len: tokens to which texts are cut or padded.

    A batch (`samples`) holds `image` [B, 3, H, W] or, where the frozen ViT has run already, `vision_features`
    [B, L, D_v], and `text_input` (list of B texts).
    """

    PRETRAINED_MODEL_CONFIG_DICT: dict[str, str] = {}
    CONFIG_KEYS = KEYS

    def __init__(
        self,
        vision: VisionTower,
        qformer: QFormerLM,
        tokenizer: PreTrainedTokenizerBase,
        *,
        embed_dim: int = 256,
        max_txt_len: int = 32,
    ):
        BaseModel.__init__(self)  # LAVIS's own builds its parts itself, from a hub
        config = qformer.config
        self.vision = vision
        self.tokenizer = tokenizer
        self.ln_vision = LayerNorm(vision.num_features)
        self.Qformer = qformer
        self.query_tokens = nn.Parameter(
            torch.randn(1, config.query_length, config.hidden_size) * config.initializer_range
        )
        self.vision_proj = nn.Linear(config.hidden_size, embed_dim)
        self.text_proj = nn.Linear(config.hidden_size, embed_dim)
        self.itm_head = nn.Linear(config.hidden_size, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))
        self.max_txt_len = max_txt_len

    def visual_encoder(self, pictures: Tensor) -> Tensor:
        """What LAVIS's methods call: images [B, 3, H, W], or their features [B, L, D_v], to features."""
        return pictures if pictures.ndim == 3 else self.vision(pictures)

    def forward(self, samples: dict[str, Any]) -> dict[str, Tensor]:
        """`loss`, the sum of `loss_itc`, `loss_itm` and `loss_lm`.

        In training the contrast is over the batches of all processes; over each process's own in evaluation, where
        batches differ in number, and in a step in which they differ in size since pictures could not be read.

        Raises:
            ConfigError: a batch of one, which has nothing to be told from.
        """
        size = len(samples["text_input"])
        sizes = processes.sizes(size, self.temp.device) if self.training else [size]
        if 1 in sizes:
            raise ConfigError(
                "a batch holds one picture, but BLIP-2's first stage contrasts the pictures of a batch: choose "
                "run.batch_size_train and run.batch_size_eval so that none, not even a split's last, is left with one"
            )
        together = self.training and len(set(sizes)) == 1
        with nullcontext() if together else processes.apart():
            output = super().forward(_with_pictures(samples))
        return {name: output[name] for name in ("loss", "loss_itc", "loss_itm", "loss_lm")}

    def miss_batch(self) -> None:
        """What a process calls in place of `forward` for an empty batch: the others ask it for its size."""
        processes.sizes(0, self.temp.device)

    @torch.no_grad()
    def generate(
        self,
        samples: dict[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        top_p: float = 0.9,
    ) -> list[str]:
        """B captions by the Q-Former's own language head; lengths in tokens, the bos token included."""
        return super().generate(_with_pictures(samples), use_nucleus_sampling, num_beams, max_length, min_length, top_p)

    @torch.no_grad()
    def extract_features(self, samples: dict[str, Any], mode: str = "multimodal") -> BlipOutputFeatures:
        """LAVIS's features of images, texts or both; its first kind, [B, Q, D], is what stage 2 starts from."""
        return super().extract_features(_with_pictures(samples), mode)

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: biases, norms and the temperature without decay."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in parameters if (p.ndim >= 2) == decays], "weight_decay": decay, "lr_scale": 1.0}
            for decays, decay in ((True, weight_decay), (False, 0.0))
        ]

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """The trainable tensors by name, tied ones under both names as in LAVIS's checkpoints."""
        named = self.named_parameters(remove_duplicate=False)
        return {name: tensor.detach() for name, tensor in named if tensor.requires_grad}

    @classmethod
    def from_config(cls, cfg: DictConfig | dict[str, Any]) -> Blip2Stage1:
        """Build the model that a configuration describes, and load its checkpoint if it names one.

        Raises:
            ConfigError: a key or value is wrong. WeightsError: weights are missing or do not fit.
        """
        values: Any = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)
        check_keys(values, KEYS)
        config = ModelConfig.parse({key: value for key, value in values.items() if key != "embed_dim"})
        vision = build_vision_tower(**config.vision())
        qformer, tokenizer = build_qformer(
            vision.num_features, config.bert_model, config.connector_config, config.num_layers, config.num_query_token
        )
        embed_dim = values.get("embed_dim", 256)
        model = cls(vision, qformer, tokenizer, embed_dim=embed_dim, max_txt_len=config.max_txt_len)
        model.configuration = values
        checkpoint = config.checkpoint()
        if checkpoint:
            model.load_checkpoint(checkpoint)
        return model


def build_qformer(
    num_features: int,
    bert_model: str | None,
    connector_config: dict[str, Any] | None = None,
    num_layers: int | None = None,
    num_query_token: int = 32,
) -> tuple[QFormerLM, PreTrainedTokenizerBase]:
    """LAVIS's Q-Former with both halves and its language head, and the tokenizer, from the keys of these names.

    Raises:
        ConfigError: no `bert_model`, or a `connector_config` or `num_layers` that its weights do not fill.
        WeightsError: no BERT under that name.
    """
    if not bert_model:
        raise ConfigError("model.bert_model is not set: BLIP-2's first stage reads texts with a BERT and its tokenizer")
    tokenizer = load_pretrained(AutoTokenizer.from_pretrained, bert_model, "bert_model")
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    bert = load_bert(bert_model, AutoModelForMaskedLM)
    bert.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    config = qformer_config(bert_config(bert.config, connector_config, num_layers), num_features, num_query_token)
    qformer = QFormerLM(config)
    weights = with_query_halves(bert.state_dict())
    missing = [name for name, _ in qformer.named_parameters() if name not in weights and "crossattention" not in name]
    if missing:
        raise ConfigError(f"num_layers: {config.num_hidden_layers}, but {bert_model} has fewer (no {missing[0]})")
    try:
        qformer.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"connector_config: sizes differ from those of {bert_model}") from error
    return qformer, tokenizer


def _with_pictures(samples: dict[str, Any]) -> dict[str, Any]:
    """The batch with its features, if it has them, under the name that LAVIS's methods read."""
    return {**samples, "image": samples["vision_features"].float()} if "vision_features" in samples else samples
