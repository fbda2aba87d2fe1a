"""What a run's yaml needs: its keys, weights and data, the memory, and how it is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Result
from lavis_evlgen.doctor.machine import GIB, check_disk
from lavis_evlgen.doctor.places import hugging_face_cache, is_set, torch_hub

_NAMED_PARTS = ("bert_model", "tokenizer", "opt_model", "llm_model", "t5_model")
_FILES = ("vit_weights", "connector_weights")
_LAVIS_VITS = {"eva_clip_g": "eva_vit_g.pth", "clip_L": "clip_vit_L.pth"}


def check_keys(path: str) -> Iterator[Result]:
    from lavis_evlgen.configuration.check import check_config
    from lavis_evlgen.errors import ConfigError
    from lavis_evlgen.runners.settings import RunSettings

    try:
        config = _read(path)
        RunSettings.from_config(config.run)
        check_config(config)
    except ConfigError as error:
        for line in str(error).removeprefix("configuration: ").splitlines():
            yield PROBLEM, line.strip(), f"mend it in {path}"
    else:
        yield OK, f"every key and name in {path} is known"


def check_weights(path: str) -> Iterator[Result]:
    keys = _merged(path).model_cfg
    for key, source in _sources(keys):
        yield weights(key, source)


def _sources(keys: Any) -> Iterator[tuple[str, str]]:
    """(key, where its weights come from) of a model section."""
    vit = str(keys.get("vit_model") or "")
    own_vit = keys.get("vit_weights")
    if vit.startswith("hf:") and not own_vit:
        yield "vit_model", vit.removeprefix("hf:")
    elif vit in _LAVIS_VITS and not own_vit and not keys.get("vit_config"):
        yield "vit_model", str(torch_hub() / _LAVIS_VITS[vit])
    for key in (*_NAMED_PARTS, *_FILES):
        if keys.get(key):
            yield key, str(keys[key])
    loads = "finetuned" if keys.get("load_finetuned") else "pretrained" if keys.get("load_pretrained") else ""
    if loads and keys.get(loads):
        yield loads, str(keys[loads])


def weights(key: str, source: str) -> Result:
    """Whether the weights under a key of the model section are at hand."""
    place = Path(source).expanduser()
    if source.startswith("embedded:"):
        return OK, f"model.{key}: {source}"  # the line on embedded weights says whether its package is there
    if "://" in source or place.parent == torch_hub():
        there = torch_hub() / place.name
        if there.is_file():
            return OK, f"model.{key}: {there}"
        return NOTE, f"model.{key}: {place.name} is not in {torch_hub()} yet and will be downloaded"
    if place.is_file():
        return OK, f"model.{key}: {place.absolute()}, {place.stat().st_size / GIB:.2f} GiB"
    way_out = f"set model.{key} to a local folder or file"
    if place.is_dir():
        if (place / "config.json").is_file():
            return OK, f"model.{key}: {place.absolute()}"
        return PROBLEM, f"model.{key}: the folder {place.absolute()} has no config.json", way_out
    if place.is_absolute() or key in _FILES or place.suffix in (".pth", ".pt", ".safetensors"):
        return PROBLEM, f"model.{key}: there is no {place.absolute()}", way_out
    cached = hugging_face_cache() / f"models--{source.replace('/', '--')}" / "snapshots"
    if cached.is_dir() and any(cached.iterdir()):
        return OK, f"model.{key}: {source} in {cached.parent}"
    if is_set("HF_HUB_OFFLINE") or is_set("TRANSFORMERS_OFFLINE"):
        return PROBLEM, f"model.{key}: {source} is not in {hugging_face_cache()}, and nothing is downloaded", way_out
    return NOTE, f"model.{key}: {source} is not in {hugging_face_cache()} yet and will be downloaded"


def check_data(path: str) -> Iterator[Result]:
    """Files and folders that the data sets name; what can still be fetched is no problem."""
    for name, section in _merged(path).datasets_cfg.items():
        yield from files_of(f"datasets.{name}", section)


def files_of(key: str, section: Any) -> Iterator[Result]:
    """Findings for every path in a section of `datasets`, with LAVIS's defaults in it."""
    from omegaconf import OmegaConf

    shards = section.get("shards")
    for name, value in section.items():
        where = f"{key}.{name}"
        if name == "build_info" and shards:
            continue  # where LAVIS's own files name the shards
        if (name == "shards" and (shards or "build_info" not in section)) or (name == "storage" and _is_pattern(value)):
            yield _shards(where, value)
        elif name == "annotations" or name in ("images", "videos", "storage"):
            yield from _files(where, value, section.get("url"))
        elif OmegaConf.is_dict(value) and not name.endswith("_processor"):
            yield from files_of(where, value)


def _files(key: str, value: Any, url: object) -> Iterator[Result]:
    from omegaconf import OmegaConf

    from lavis_evlgen.datasets.local_files import local

    if OmegaConf.is_dict(value):
        for name, inner in value.items():
            if OmegaConf.is_dict(inner):  # LAVIS's {url, storage}
                yield from _files(f"{key}.{name}.storage", inner.get("storage"), inner.get("url"))
            else:
                yield from _files(f"{key}.{name}", inner, url)
        return
    paths: list[str] = [value] if isinstance(value, str) else list(value or ())
    for each in paths:
        place = local(each) if key.endswith(".storage") else Path(each).expanduser()
        if place.exists():
            yield OK, f"{key}: {place.absolute()}"
        elif url:
            yield NOTE, f"{key}: {place.absolute()} is not there yet and will be downloaded"
        else:
            yield PROBLEM, f"{key}: there is no {place.absolute()}", f"put the data there, or set {key} to where it is"


def _is_pattern(value: Any) -> bool:
    return not isinstance(value, str) or any(mark in value for mark in "{*?") or value.endswith(".tar")


def _shards(key: str, value: Any) -> Result:
    from lavis_evlgen.datasets.shards import expand_shards
    from lavis_evlgen.errors import EvlgenError

    try:
        return OK, f"{key}: {len(expand_shards(value, key)):,} shards"
    except EvlgenError as error:
        return PROBLEM, str(error)


def check_room(path: str) -> Iterator[Result]:
    """Memory and disk that the run needs, against those of this machine; and how to start it."""
    import torch

    from lavis_evlgen.errors import ConfigError
    from lavis_evlgen.runners.settings import RunSettings

    config = _read(path)
    run = RunSettings.from_config(config.run)
    on_gpu = run.device.startswith("cuda") and torch.cuda.is_available()
    processes = torch.cuda.device_count() if on_gpu else 1
    try:
        costs = _costs(config, processes)
    except ConfigError as error:
        yield NOTE, f"its memory cannot be told ({str(error).split(';')[0]})"
        yield from check_disk(Path(run.output_dir).expanduser())
    else:
        yield memory(costs["memory_bytes"]["total"], on_gpu)
        files = costs["file_bytes"]
        written = (
            files["model.pth"] + (run.keep_checkpoints + 2) * files["checkpoint"]
        )  # those kept, the best, a new one
        yield from check_disk(Path(run.output_dir).expanduser(), written)
    images = run.batch_size_train * run.accum_grad_iters * processes
    where = f"{processes} GPUs" if on_gpu else "the processor"
    yield (
        OK,
        f"on {where}, {images} samples a step: python -m torch.distributed.run --nproc_per_node={processes} "
        f"-m lavis_evlgen.{'evaluate' if run.evaluate else 'train'} --cfg-path {path}",
    )


def memory(needed: int, on_gpu: bool) -> Result:
    """Bytes that a process needs, against those of the smallest GPU or of the machine."""
    import psutil
    import torch

    if on_gpu:
        there = min(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count()))
    else:
        there = psutil.virtual_memory().available
    text = f"about {needed / GIB:.1f} GiB of memory a process (see `evlgen cost`), {there / GIB:.1f} are there"
    if needed > there:
        return PROBLEM, text, "lower run.batch_size_train and raise run.accum_grad_iters, or set use_grad_checkpoint"
    return OK, text


def _costs(config: Any, processes: int) -> dict[str, Any]:
    from lavis_evlgen.cost.estimate import Assumptions, estimate

    return estimate(config, Assumptions(gpus=processes))


def _read(path: str) -> Any:
    from lavis_evlgen.configuration.read import read_config

    return read_config(os.path.expanduser(path), [])


def _merged(path: str) -> Any:
    """The configuration with the defaults of LAVIS's and our files."""
    from lavis_evlgen.launch import lavis_config

    return lavis_config(_read(path))
