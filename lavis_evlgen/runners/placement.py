"""Where this process stands among those of its run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Rank of this process, its number on this machine, and how many processes there are."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Placement:
        """As torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or srun (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID) say.

        A batch script itself has srun's variables too, but no SLURM_STEP_ID: what it starts without srun is alone.
        """
        if "RANK" in env and "WORLD_SIZE" in env:
            return cls(int(env["RANK"]), int(env.get("LOCAL_RANK", 0)), int(env["WORLD_SIZE"]))
        if all(name in env for name in ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS")):
            return cls(int(env["SLURM_PROCID"]), int(env.get("SLURM_LOCALID", 0)), int(env["SLURM_NTASKS"]))
        return cls()
