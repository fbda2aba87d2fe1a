"""Builders that turn the ``datasets`` section of a configuration into data sets by split."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.datasets.image_text import ImageCaptionDataset, ImageCaptionEvalDataset
from lavis_evlgen.datasets.local_files import CaptionFilesBuilder, LocalBuilder, existing_dir, local, storage
from lavis_evlgen.datasets.shards import expand_shards
from lavis_evlgen.datasets.streams import ImageCaptionStream
from lavis_evlgen.downloads import download_url
from lavis_evlgen.errors import DataError
from lavis_evlgen.paths import config_path
from lavis_evlgen.registration_tools import register


@register("builder", "image_caption")
class ImageCaptionBuilder(CaptionFilesBuilder):
    """Your own pictures and captions: a folder ``images`` and one annotation file per split in ``annotations``."""

    name = "image_caption"
    train_dataset_cls = ImageCaptionDataset
    eval_dataset_cls = ImageCaptionEvalDataset
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "image_caption.yaml")}


class StorageBuilder(CaptionFilesBuilder):
    """Files under the keys of LAVIS's configurations, ``build_info.annotations.SPLIT`` and ``build_info.images``.

    Relative ``storage`` paths are looked for in the working directory, then in LAVIS's cache. Annotation files that are
    absent are fetched from their ``url``, pictures and clips never.
    """

    original: Mapping[str, str] = {}
    """Files of the data set's first release that do as well, by split."""

    source = ""
    """Where the official files are released, for errors."""

    def _download_data(self) -> None:
        """Fetch absent annotation files, as LAVIS does."""
        for split, info in self._splits().items():
            self._fetch(split, info)

    def _fetch(self, split: str, info: DictConfig) -> None:
        urls = [info.url] if isinstance(info.get("url"), str) else list(info.get("url") or ())
        for number, path in enumerate(storage(info)):
            if not path.is_file():
                self._download(split, path, urls[number] if number < len(urls) else None)

    def _download(self, split: str, path: Path, url: str | None) -> None:
        key = self.key(f"build_info.annotations.{split}")
        official = url.rsplit("/", 1)[-1] if url else path.name
        if self.original.get(split, official) != official:
            official += f" (or {self.original[split]} of the original release)"
        official += f" from {self.source}" if self.source else ""
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
        return {split: storage(info) for split, info in self._splits().items()}

    def folder(self) -> Path:
        return existing_dir(local(str(self.config.build_info[self.folder_key].storage)), self.key(self.files_key))

    @property
    def files_key(self) -> str:
        return f"build_info.{self.folder_key}.storage"


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
