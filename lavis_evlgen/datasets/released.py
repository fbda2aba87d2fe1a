"""Builders of public data sets: any official file will do, and only the splits that a run uses must be there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig

from lavis_evlgen.datasets.builders import StorageBuilder
from lavis_evlgen.datasets.local_files import storage
from lavis_evlgen.errors import DataError


class ReleasedBuilder(StorageBuilder):
    """Files of a release under LAVIS's keys.

    Splits whose files are absent, and cannot be fetched, are an error only if a run uses them: who evaluates on one
    split needs no other.
    """

    other_names: Mapping[str, tuple[str, ...]] = {}
    """Names, by split, under which another official file may lie beside the configured one and do as well."""

    def _download_data(self) -> None:
        self._reasons: dict[str, DataError] = {}
        for split, info in self._splits().items():
            try:
                self._fetch(split, info)
            except DataError as error:
                self._reasons[split] = error

    def _fetch(self, split: str, info: DictConfig) -> None:
        if not _all_there(self.files(split, info)):
            super()._fetch(split, info)

    def files(self, split: str, info: DictConfig) -> list[Path]:
        """The annotation files of a split as configured, or the one that lies there under another official name."""
        configured = storage(info)
        others = [configured[0].with_name(name) for name in self.other_names.get(split, ())]
        return next(([path] for path in others if path.is_file() and not _all_there(configured)), configured)

    def annotation_files(self) -> dict[str, list[Path]]:
        files = {split: self.files(split, info) for split, info in self._splits().items()}
        return {split: paths for split, paths in files.items() if _all_there(paths)}

    def build(self) -> dict[str, Any]:
        there = self.annotation_files()
        absent = {split: self._reason(split, info) for split, info in self._splits().items() if split not in there}
        if absent and not there:
            raise next(iter(absent.values()))
        return {**super().build(), **{split: AbsentSplit(str(error)) for split, error in absent.items()}}

    def _reason(self, split: str, info: DictConfig) -> DataError:
        """What was wrong with the files of a split; in distributed runs only the first rank tries to fetch them."""
        missing = next(path for path in self.files(split, info) if not path.is_file())
        key = self.key(f"build_info.annotations.{split}")
        return getattr(self, "_reasons", {}).get(split) or DataError(f"{key}.storage: {missing} does not exist")


class AbsentSplit:
    """Stands for a split without files; whatever is done with it raises DataError."""

    def __init__(self, reason: str) -> None:
        self.__dict__["reason"] = reason

    def _refuse(self, *args: Any) -> NoReturn:
        raise DataError(self.__dict__["reason"])

    __getattr__ = __len__ = __getitem__ = __iter__ = _refuse  # type: ignore[assignment]


def _all_there(paths: list[Path]) -> bool:
    return all(path.is_file() for path in paths)
