"""Retrieval scores with text-guided reduction where image and text meet: in the matching head's re-ranking.

LAVIS ranks by the similarity of both CLS tokens (all tokens, no text involved) and re-ranks the best `k_test` of every
row by the matching head, on the image's tokens. Here these tokens are reduced under the text of the pair. Blocks before
the first reduction do not depend on it and run once an image.
"""

from __future__ import annotations

import logging
from typing import Any

import lavis.common.dist_utils as dist_utils
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

_PAIRS = 32  # that pass the ViT together
_TEXTS = 256
_TEXT_LENGTH = 35  # LAVIS's
_WORST = -100.0  # LAVIS's score of pairs that are not re-ranked


def guided_sim_matrix(model: Any, data_loader: Any, k_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [images, texts] and [texts, images], as LAVIS's `compute_sim_matrix` but with reduced tokens.

    Args:
        model: an ELIP retrieval model in eval mode.
        data_loader: batches with "image"; its dataset has `text`, a list of all texts.
        k_test: pairs of each row that are re-ranked.
    """
    texts = _texts(model, data_loader.dataset.text)
    stems, image_embeds = _images(model, data_loader)
    sims = image_embeds @ texts["embeds"].T

    def score(pairs: Tensor) -> Tensor:
        """Matching scores of (image, text) pairs [P, 2]."""
        found = [_match(model, stems, texts, part) for part in pairs.split(_PAIRS)]
        return torch.cat(found)

    images_to_texts = _reranked(sims, k_test, score, flip=False)
    texts_to_images = _reranked(sims.T, k_test, score, flip=True)
    return images_to_texts, texts_to_images


def _texts(model: Any, texts: list[str]) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {"embeds": [], "ids": [], "masks": [], "guides": []}
    for start in range(0, len(texts), _TEXTS):
        tokens = model.tokenizer(
            texts[start : start + _TEXTS],
            padding="max_length",
            truncation=True,
            max_length=_TEXT_LENGTH,
            return_tensors="pt",
        ).to(model.device)
        cls = model.text_encoder.forward_text(tokens).last_hidden_state[:, 0]
        parts["embeds"].append(F.normalize(model.text_proj(cls), dim=-1))
        parts["guides"].append(model.guide(cls))
        parts["ids"].append(tokens.input_ids)
        parts["masks"].append(tokens.attention_mask)
    joined = {name: torch.cat(tensors) for name, tensors in parts.items()}
    if hasattr(model.tokenizer, "enc_token_id"):  # BLIP matches behind its own token
        joined["ids"][:, 0] = model.tokenizer.enc_token_id
    return joined


def _images(model: Any, data_loader: Any) -> tuple[Tensor, Tensor]:
    """Tokens before the first reduction (in main memory, as LAVIS keeps its image tokens) and projected CLS tokens."""
    stems, embeds = [], []
    for samples in data_loader:
        stem = model.visual_encoder.begin(samples["image"].to(model.device))
        tokens = model.visual_encoder.finish(stem, None)
        embeds.append(F.normalize(model.vision_proj(tokens[:, 0]), dim=-1))
        stems.append(stem.cpu())
    return torch.cat(stems), torch.cat(embeds)


def _match(model: Any, stems: Tensor, texts: dict[str, Tensor], pairs: Tensor) -> Tensor:
    images, rows = pairs[:, 0].cpu(), pairs[:, 1]
    tokens = model.visual_encoder.finish(stems[images].to(model.device), texts["guides"][rows])
    output = model.text_encoder(
        texts["ids"][rows],
        attention_mask=texts["masks"][rows],
        encoder_hidden_states=tokens,
        encoder_attention_mask=torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device),
        return_dict=True,
    )
    return model.itm_head(output.last_hidden_state[:, 0])[:, 1]


def _reranked(sims: Tensor, k_test: int, score: Any, flip: bool) -> np.ndarray:
    """Similarity plus matching score of every row's best, a fixed low score elsewhere; rows are shared among ranks."""
    world_size, rank = dist_utils.get_world_size(), dist_utils.get_rank()
    result = torch.full_like(sims, _WORST)
    best, columns = sims.topk(k=min(k_test, sims.shape[1]), dim=1)
    share = len(sims) // world_size + 1
    mine = range(rank * share, min(len(sims), (rank + 1) * share))
    for row in tqdm(mine, desc="re-ranking", disable=rank > 0, mininterval=10):
        rows = torch.full_like(columns[row], row)
        pairs = torch.stack([columns[row], rows] if flip else [rows, columns[row]], dim=1)
        result[row, columns[row]] = (score(pairs) + best[row]).to(result.dtype)
    if dist_utils.is_dist_avail_and_initialized():
        dist.barrier()
        dist.all_reduce(result, op=dist.ReduceOp.MAX)
    logging.info("re-ranked %d of %d rows on this rank", len(mine), len(sims))
    return result.float().cpu().numpy()
