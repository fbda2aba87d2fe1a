"""What builders of local data share: processors, folders, and the annotation files of each split."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lavis.common.utils import get_cache_path
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import DictConfig

from lavis_evlgen.datasets.records import NOUNS
from lavis_evlgen.errors import ConfigError, DataError

PROBED = 20  # files looked for when a data set is built, to catch a wrong folder before a run starts


class LocalBuilder(BaseDatasetBuilder):
    """A LAVIS builder that downloads nothing; ``name`` is its key under ``datasets``."""

    name = ""
    example = "blip_image_eval with image_size"

    def _download_data(self) -> None:
        """Everything is a local file."""

    def key(self, key: str) -> str:
        """A key of this data set as it stands in a configuration."""
        return f"datasets.{self.name}.{key}"

    def processors(self, split: str) -> tuple[Any, Any]:
        """The (visual, text) processors of a split; an evaluation text processor left out is the training one.

        Raises:
            ConfigError: the configuration has no visual processor for this split.
        """
        kind = "train" if split == "train" else "eval"
        if self.config.get("vis_processor") is None or self.vis_processors[kind] is None:
            raise ConfigError(f"{self.key(f'vis_processor.{kind}')} is not set; name one, e.g. {self.example}")
        return self.vis_processors[kind], self.text_processors[kind] or self.text_processors["train"]


class CaptionFilesBuilder(LocalBuilder):
    """A folder of pictures or clips (the key ``folder_key``), and annotation files by split in ``annotations``."""

    folder_key = "images"

    def build(self) -> dict[str, Any]:
        self.build_processors()
        folder = self.folder()
        files = self.annotation_files()
        if not files:
            raise ConfigError(f"{self.key('annotations')} names no file; set at least one split, e.g. train: FILE")
        return {split: self.split(split, paths, folder) for split, paths in files.items()}

    @property
    def nouns(self) -> str:
        return NOUNS[self.train_dataset_cls.kind] + "s"

    @property
    def files_key(self) -> str:
        """The key of the folder, as errors name it."""
        return self.folder_key

    def folder(self) -> Path:
        """The folder that the records' paths are relative to."""
        folder, key = self.config.get(self.folder_key), self.key(self.folder_key)
        if not folder:
            raise ConfigError(f"{key} is not set: it is the folder that {self.nouns[:-1]} paths are relative to")
        return existing_dir(Path(os.path.expanduser(str(folder))), key)

    def annotation_files(self) -> dict[str, list[Path]]:
        """Annotation files by split; splits set to null are left out."""
        files = {}
        for split, paths in (self.config.get("annotations") or {}).items():
            if paths:
                named: Any = [paths] if isinstance(paths, str) else paths
                if not isinstance(named, Sequence) or not all(isinstance(path, str) for path in named):
                    raise ConfigError(f"{self.key('annotations')}.{split} must be a file or a list of files")
                files[split] = [Path(os.path.expanduser(path)) for path in named]
                for path in files[split]:
                    if not os.path.isfile(path):
                        key = self.key(f"annotations.{split}")
                        raise DataError(f"{key}: {path} does not exist (looked for {path.absolute()})")
        return files

    def split(self, split: str, paths: Iterable[Path], folder: Path) -> Any:
        """Data set of one split; its first files must not all be missing."""
        vis_processor, text_processor = self.processors(split)
        options: dict[str, Any] = {
            "vis_root": str(folder),
            "ann_paths": [str(path) for path in paths],
            **self.options(split),
        }
        if split == "train":
            options["captions"] = self.config.get("captions", "all")
        dataset_cls = self.train_dataset_cls if split == "train" else self.eval_dataset_cls
        dataset = dataset_cls(vis_processor, text_processor, **options)
        self.probe(dataset, options["ann_paths"][0])
        return dataset

    def probe(self, dataset: Any, source: str) -> None:
        """Raise DataError when none of the first files that the records of ``source`` name is there."""
        first = [dataset.file(record) for record in dataset.records[:PROBED]]
        if not any(os.path.isfile(path) for path in first):
            raise DataError(
                f"{self.key(self.files_key)}: none of the first {len(first)} {self.nouns} of "
                f"{source} exists below it; looked for {first[0].absolute()}"
            )

    def options(self, split: str) -> dict[str, Any]:
        """Further arguments of the data set of a split."""
        return {}


def storage(info: DictConfig) -> list[Path]:
    """The files of a ``storage`` key of LAVIS's configurations, one or a list."""
    paths = [info.storage] if isinstance(info.storage, str) else info.storage
    return [local(path) for path in paths]


def local(path: str) -> Path:
    """An absolute path, one relative to the working directory if there is such a file, else one in LAVIS's cache."""
    found = Path(os.path.expanduser(path))
    return found if found.is_absolute() or os.path.exists(found) else Path(get_cache_path(path))


def existing_dir(path: Path, key: str) -> Path:
    """``path`` if it is a folder; DataError names the configuration key otherwise."""
    if not os.path.isdir(path):
        raise DataError(f"{key}: the folder {path} does not exist (looked for {path.absolute()})")
    return path
