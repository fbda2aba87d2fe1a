"""Builders that turn the ``datasets`` section of a configuration into data sets by split."""

import logging
from pathlib import Path
from typing import Any

from lavis.common.utils import get_cache_path
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import DictConfig, OmegaConf
from torchvision.datasets.utils import download_url

from lavis_evlgen.datasets.image_text import (
    CocoCaptionDataset,
    CocoCaptionEvalDataset,
    ImageCaptionDataset,
    ImageCaptionEvalDataset,
)
from lavis_evlgen.datasets.streams import ImageCaptionStream, expand_shards
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.paths import config_path
from lavis_evlgen.registration_tools import register

PROBED = 20  # pictures looked for when a data set is built, to catch a wrong folder before a run starts


class LocalBuilder(BaseDatasetBuilder):
    """A LAVIS builder that downloads nothing; ``name`` is its key under ``datasets``."""

    name = ""

    def _download_data(self) -> None:
        """Everything is a local file."""

    def processors(self, split: str) -> tuple[Any, Any]:
        """The (picture, text) processors of a split; an evaluation text processor left out is the training one.

        Raises:
            ConfigError: the configuration has no picture processor for this split.
        """
        kind = "train" if split == "train" else "eval"
        if self.config.get("vis_processor") is None or self.vis_processors[kind] is None:
            raise ConfigError(
                f"datasets.{self.name}.vis_processor.{kind} is not set; name one, e.g. blip_image_eval with image_size"
            )
        return self.vis_processors[kind], self.text_processors[kind] or self.text_processors["train"]


@register("builder", "image_caption")
class ImageCaptionBuilder(LocalBuilder):
    """Your own pictures and captions: a folder ``images`` and one annotation file per split in ``annotations``."""

    name = "image_caption"
    train_dataset_cls = ImageCaptionDataset
    eval_dataset_cls = ImageCaptionEvalDataset
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "image_caption.yaml")}

    def build(self) -> dict[str, Any]:
        self.build_processors()
        images = self.images_dir()
        files = self.annotation_files()
        if not files:
            raise ConfigError(f"{self._key('annotations')} names no file; set at least one split, e.g. train: FILE")
        return {split: self.split(split, paths, images) for split, paths in files.items()}

    def _key(self, key: str) -> str:
        return f"datasets.{self.name}.{key}"

    def images_dir(self) -> Path:
        """The folder that picture paths are relative to."""
        images = self.config.get("images")
        if not images:
            raise ConfigError(f"{self._key('images')} is not set: it is the folder that picture paths are relative to")
        return _existing_dir(Path(str(images)).expanduser(), self._key("images"))

    def annotation_files(self) -> dict[str, list[Path]]:
        """Annotation files by split; splits set to null are left out."""
        files = {}
        for split, paths in (self.config.get("annotations") or {}).items():
            if paths:
                files[split] = [Path(p).expanduser() for p in ([paths] if isinstance(paths, str) else paths)]
                for path in files[split]:
                    if not path.is_file():
                        raise DataError(
                            f"{self._key(f'annotations.{split}')}: {path} does not exist (looked for {path.absolute()})"
                        )
        return files

    def split(self, split: str, paths: list[Path], images: Path) -> Any:
        """Data set of one split; its first pictures must not all be missing."""
        vis_processor, text_processor = self.processors(split)
        options: dict[str, Any] = {"vis_root": str(images), "ann_paths": [str(path) for path in paths]}
        if split == "train":
            options["captions"] = self.config.get("captions", "all")
        dataset_cls = self.train_dataset_cls if split == "train" else self.eval_dataset_cls
        dataset = dataset_cls(vis_processor, text_processor, **options)
        first = [images / record.image for record in dataset.records[:PROBED]]
        if not any(path.is_file() for path in first):
            raise DataError(
                f"{self._key('images')}: none of the first {len(first)} pictures of {paths[0]} exists below it; "
                f"looked for {first[0].absolute()}"
            )
        return dataset


@register("builder", "coco_caption")
class CocoCaptionBuilder(ImageCaptionBuilder):
    """LAVIS's ``coco_caption`` (same configuration) with string ids and reference captions for any evaluation.

    Relative ``storage`` paths are looked for in the working directory, then in LAVIS's cache.
    """

    name = "coco_caption"
    train_dataset_cls = CocoCaptionDataset
    eval_dataset_cls = CocoCaptionEvalDataset
    DATASET_CONFIG_DICT = {"default": "configs/datasets/coco/defaults_cap.yaml"}

    def _download_data(self) -> None:
        """Fetch absent annotation files, as LAVIS does."""
        for split, info in self._splits().items():
            urls = [info.url] if isinstance(info.get("url"), str) else list(info.get("url") or ())
            for number, path in enumerate(_storage(info)):
                if not path.is_file():
                    self._download(split, path, urls[number] if number < len(urls) else None)

    def _download(self, split: str, path: Path, url: str | None) -> None:
        key = self._key(f"build_info.annotations.{split}")
        official = url.rsplit("/", 1)[-1] if url else path.name
        try:
            if url is None:
                raise ValueError("no url is given")
            download_url(url, str(path.parent), path.name)
        except Exception as error:  # urllib, sockets and torchvision raise kinds of their own
            raise DataError(
                f"{key}.storage: {path} does not exist and could not be downloaded ({error}). Put the official file "
                f"{official} there, set {key}.storage to where you have it, or set {key} to null to leave the split out"
            ) from error

    def _splits(self) -> dict[str, DictConfig]:
        return {split: info for split, info in self.config.build_info.annotations.items() if info is not None}

    def annotation_files(self) -> dict[str, list[Path]]:
        return {split: _storage(info) for split, info in self._splits().items()}

    def images_dir(self) -> Path:
        storage = str(self.config.build_info.images.storage)
        return _existing_dir(_local(storage), self._key("build_info.images.storage"))


class _TarBuilder(LocalBuilder):
    """Shards of pictures and captions: ``shards``, or ``build_info.storage`` as in LAVIS's own configurations."""

    def build(self) -> dict[str, Any]:
        self.build_processors()
        vis_processor, text_processor = self.processors("train")
        shards, key = self.config.get("shards"), f"datasets.{self.name}.shards"
        if not shards:
            shards, key = OmegaConf.select(self.config, "build_info.storage"), self.storage_key()
        stream = ImageCaptionStream(
            expand_shards(shards or (), key),
            vis_processor,
            text_processor,
            caption_key=self.config.get("caption_key", "caption"),
            shuffle_buffer=self.config.get("shuffle_buffer", 1000),
            seed=self.config.get("seed", 42),
        )
        logging.info("%s: %d shards", self.name, len(stream.shards))
        return {"train": stream}

    def storage_key(self) -> str:
        return f"datasets.{self.name}.build_info.storage"


@register("builder", "image_caption_tar")
class ImageCaptionTarBuilder(_TarBuilder):
    """Your own webdataset shards; ``shards`` is a brace pattern, a glob or a list."""

    name = "image_caption_tar"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "image_caption_tar.yaml")}

    def storage_key(self) -> str:
        return f"datasets.{self.name}.shards"


@register("builder", "laion115M")
class Laion115MBuilder(_TarBuilder):
    """The LAION-115M subset that BLIP captioned, under its name in official EVLGen files."""

    name = "laion115M"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "laion115M.yaml")}


@register("builder", "ccs14M")
class Ccs14MBuilder(_TarBuilder):
    """CC3M, CC12M and SBU with BLIP's captions, under their name in official EVLGen files."""

    name = "ccs14M"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "ccs14M.yaml")}


def _storage(info: DictConfig) -> list[Path]:
    paths = [info.storage] if isinstance(info.storage, str) else info.storage
    return [_local(path) for path in paths]


def _local(path: str) -> Path:
    """An absolute path, one relative to the working directory if there is such a file, else one in LAVIS's cache."""
    local = Path(path).expanduser()
    return local if local.is_absolute() or local.exists() else Path(get_cache_path(path))


def _existing_dir(path: Path, key: str) -> Path:
    if not path.is_dir():
        raise DataError(f"{key}: the folder {path} does not exist (looked for {path.absolute()})")
    return path
