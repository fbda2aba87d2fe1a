"""Training batches from one or several data sets, resumable at any step."""

from collections.abc import Mapping
from math import inf
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from lavis_evlgen.errors import WeightsError
from lavis_evlgen.runners.mixture import Turns, grouped
from lavis_evlgen.runners.samples import Place
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.sources import IterableStream, MapStream


class TrainLoader:
    """Endless training batches from one or several data sets; batch k comes from the same one on every rank."""

    def __init__(
        self,
        datasets: Mapping[str, list[Dataset]],
        settings: RunSettings,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """``datasets`` maps each name to its training splits; ``settings.train_dataset_ratios`` may weigh the names."""
        self.settings = settings
        groups, weights = grouped(datasets, settings.train_dataset_ratios)
        self.streams = [
            (IterableStream if isinstance(data, IterableDataset) else MapStream)(name, data, settings, rank, world_size)
            for name, data in groups.items()
        ]
        self._turns = Turns(weights)
        self.step = 0

    @property
    def epoch_length(self) -> int | None:
        """Batches a rank makes of one pass over the data; None for mixtures and streams."""
        return self.streams[0].epoch_length if len(self.streams) == 1 else None

    @property
    def pass_sizes(self) -> tuple[float, float]:
        """Samples of all data sets together, and how many of them a pass shows; infinite with a stream."""
        maps = [each.batches for each in self.streams if isinstance(each, MapStream)]
        if len(maps) < len(self.streams):
            return inf, inf
        return sum(each.length for each in maps), sum(min(each.length, each.remaining(Place())) for each in maps)

    def batches_until(self, epoch: int) -> int | None:
        """Batches of this rank from here to the end of the pass before number ``epoch``; None where there are none."""
        only = self.streams[0]
        return only.batches_until(epoch) if len(self.streams) == 1 and isinstance(only, MapStream) else None

    def choice(self, step: int) -> int:
        """Number of the stream that batch ``step`` comes from."""
        return self._turns(step)

    def __iter__(self) -> "TrainLoader":
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.streams[self.choice(self.step)])
        self.step += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Step and positions. Every rank must call it."""
        return {"step": self.step, "positions": {each.name: each.position() for each in self.streams}}

    def load_state_dict(self, state: Mapping[str, Any], path: str = "the checkpoint") -> list[str]:
        """Jump to a saved position; what is different now from what would have come then, for the log.

        Raises WeightsError, which names the checkpoint's ``path``, when it is the position of other data sets.
        """
        then, now = (sorted(map(str, names)) for names in (state["positions"], (each.name for each in self.streams)))
        if then != now:
            raise WeightsError(
                f"{path} was trained on {', '.join(then) or 'no data set'}, but the configuration trains on "
                f"{', '.join(now)}: set another run.output_dir for a new run, or put the data sets back"
            )
        self.step = state["step"]
        changes = [stream.seek(state["positions"][stream.name]) for stream in self.streams]
        return [change for change in changes if change]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
