"""Count of unreadable samples, and the limit at which a run stops."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from lavis_evlgen.errors import DataError

SHOWN = 5
LEAST_SAMPLES = 100


class BadSampleTally:
    """Names the first bad samples and raises DataError when their share passes ``max_share``.

    The share is judged from ``LEAST_SAMPLES`` samples on. Of a smaller data set it is judged when all that is shown of
    it was seen once, and always as a share of the whole set at least: a process may see a part of it alone.
    """

    def __init__(self, max_share: float, samples: float = math.inf, shown: float = math.inf) -> None:
        """``samples`` of the data set, and how many of them are ``shown`` to those who count here in one pass."""
        self.max_share = max_share
        self.judged_from, self.least = min(shown, LEAST_SAMPLES), min(samples, LEAST_SAMPLES)
        self.good = 0
        self.bad = 0
        self._shown: list[str] = []

    def state_dict(self) -> dict[str, int]:
        return {"good": self.good, "bad": self.bad}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Count on from :meth:`state_dict`; an empty one, of older checkpoints, starts afresh."""
        self.good, self.bad = state.get("good", 0), state.get("bad", 0)

    def show(self, batch: dict[str, Any]) -> None:
        """Log path and reason of a batch's bad samples while few were shown."""
        for sample in batch.get("bad_samples", ()):
            if len(self._shown) < SHOWN:
                self._shown.append(str(sample))
                more = "; further ones are only counted" if len(self._shown) == SHOWN else ""
                logging.warning("skipped a bad sample: %s%s", sample, more)

    def add(self, good: int, bad: int) -> None:
        self.good += good
        self.bad += bad
        seen = self.good + self.bad
        if seen >= self.judged_from and self.bad > self.max_share * max(seen, self.least):
            examples = f" For example: {'; '.join(self._shown)}." if self._shown else ""
            raise DataError(
                f"{self.bad} of {seen} samples could not be read, more than run.max_bad_share ({self.max_share:g})."
                f"{examples} Check the picture folder of the data set, or raise run.max_bad_share"
            )
