"""Bipartite soft matching: which tokens merge (Bolya et al. 2023, section 3; written from the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_evlgen.token_reduction.reduction import Reduction


@torch.no_grad()
def bipartite_soft_matching(
    metric: Tensor, r: int, *, protect_cls: bool = True, sizes: Tensor | None = None
) -> Reduction:
    """Merge the `r` most similar pairs between the even (A) and the odd (B) tokens.

    Every A token picks its most similar B token by cosine similarity; the `r` A tokens with the highest such
    similarity merge into their partners. The result lists the A tokens that stay, in their order, then all B tokens.

    Args:
        metric: [B, N, C], what similarity is measured on (TomeFormer: the keys averaged over heads).
        r: tokens to remove; at most half of the unprotected tokens are.
        protect_cls: token 0 never merges and stays first.
        sizes: [B, N], the original tokens that each token stands for: merged tokens become means weighted by size.
            None gives the plain mean of the tokens merged in this call (what the EVLGen code does).

    Returns:
        The reduction from N to N - min(r, (N - protected) // 2) tokens.
    """
    batch, num_tokens, _ = metric.shape
    r = min(r, (num_tokens - int(protect_cls)) // 2)
    if r <= 0:
        return Reduction.identity(batch, num_tokens, metric.device)

    metric = F.normalize(metric.float(), dim=-1)
    # autocast would round similarities to 16 bits: in bf16 most of them then equal others, and the order is lost
    with torch.autocast(metric.device.type, enabled=False):
        similarity = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
    if protect_cls:
        similarity[:, 0] = -torch.inf
    best, partner = similarity.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    merged, kept = order[:, :r], order[:, r:].sort(dim=-1).values

    num_kept = kept.shape[1]
    target = torch.empty(batch, num_tokens, dtype=torch.long, device=metric.device)
    target_a, target_b = target[:, ::2], target[:, 1::2]
    target_b.copy_(torch.arange(num_kept, num_tokens - r, device=metric.device).expand_as(target_b))
    target_a.scatter_(1, kept, torch.arange(num_kept, device=metric.device).expand_as(kept))
    target_a.scatter_(1, merged, num_kept + partner.gather(1, merged))

    mass = torch.ones_like(target, dtype=metric.dtype) if sizes is None else sizes.to(metric.dtype)
    total = mass.new_zeros(batch, num_tokens - r).scatter_add(1, target, mass)
    return Reduction(target, mass / total.gather(1, target), num_tokens - r)
