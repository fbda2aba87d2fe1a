"""Count of unreadable samples, and the limit at which a run stops."""

import logging
from typing import Any

from lavis_evlgen.errors import DataError

SHOWN = 5
LEAST_SAMPLES = 100


class BadSampleTally:
    """Names the first bad samples and raises DataError when their share passes ``max_share``."""

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.good = 0
        self.bad = 0
        self._shown: list[str] = []

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
        if seen >= LEAST_SAMPLES and self.bad > self.max_share * seen:
            examples = f" For example: {'; '.join(self._shown)}." if self._shown else ""
            raise DataError(
                f"{self.bad} of {seen} samples could not be read, more than run.max_bad_share ({self.max_share:g})."
                f"{examples} Check the picture folder of the data set, or raise run.max_bad_share"
            )
