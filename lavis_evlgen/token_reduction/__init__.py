"""Reducing tokens: what merges into what (`reduction`), who decides (`matching`), how fast (`schedule`)."""

from lavis_evlgen.token_reduction.matching import bipartite_soft_matching
from lavis_evlgen.token_reduction.reduction import Reduction
from lavis_evlgen.token_reduction.schedule import merge_schedule, token_counts

__all__ = ["Reduction", "bipartite_soft_matching", "merge_schedule", "token_counts"]
