"""Reducing tokens: what goes where (`reduction`), who decides (`matching`, `text_guided`), how fast (`schedule`)."""

from lavis_evlgen.token_reduction.matching import bipartite_soft_matching
from lavis_evlgen.token_reduction.reduction import Reduction
from lavis_evlgen.token_reduction.schedule import fewest_tokens, merge_schedule, stretched_schedule, token_counts
from lavis_evlgen.token_reduction.text_guided import kept_counts, text_guided_counts, text_guided_reduction

__all__ = [
    "Reduction",
    "bipartite_soft_matching",
    "fewest_tokens",
    "kept_counts",
    "merge_schedule",
    "stretched_schedule",
    "text_guided_counts",
    "text_guided_reduction",
    "token_counts",
]
