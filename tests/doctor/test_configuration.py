"""What a yaml needs, in a folder where some of it is missing."""

import json
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from PIL import Image

from lavis_evlgen.doctor import configuration, machine, smoke
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, examine


@pytest.fixture
def yaml(tmp_path):
    """Path of the small training's yaml with changes by dotted key; all that it needs is there."""

    def write(**changes):
        path = smoke.write_run(tmp_path)
        config = OmegaConf.load(path)
        for key, value in changes.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        OmegaConf.save(config, path)
        return str(path)

    return write


def levels(found):
    return [each[0] for each in found]


def test_a_whole_yaml(yaml, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=100 * machine.GIB))
    path = yaml()
    assert list(configuration.check_keys(path)) == [(OK, f"every key and name in {path} is known")]
    assert list(configuration.check_weights(path)) == [(OK, f"model.llm_model: {tmp_path}/llm")]
    assert list(configuration.check_data(path)) == [
        (OK, f"datasets.image_caption.images: {tmp_path}"),
        (OK, f"datasets.image_caption.annotations.train: {tmp_path}/train.json"),
    ]
    memory, disk, launch = configuration.check_room(path)
    assert levels([memory, disk, launch]) == [OK, OK, OK] and memory[1].startswith("about 0.0 GiB of memory a process")
    command = f"python -m torch.distributed.run --nproc_per_node=1 -m lavis_evlgen.train --cfg-path {path}"
    assert launch[1] == f"on the processor, 4 samples a step: {command}"


def test_misspelled_keys_are_told_one_by_one(yaml):
    path = yaml(run__batch_size=3, model__tome_rr=2)
    found = list(configuration.check_keys(path))
    assert [each[:2] for each in found] == [
        (PROBLEM, "model.tome_rr is unknown; did you mean 'tome_r'?"),
        (PROBLEM, "run.batch_size is unknown; did you mean 'batch_size_eval'?"),
    ]
    (found,) = examine("yaml", lambda: configuration.check_keys("gone.yaml"))
    assert found.level == PROBLEM and "gone.yaml: there is no such file" in found.text


def test_what_is_missing_is_named(yaml, tmp_path):
    path = yaml(
        model__llm_model=str(tmp_path / "gone"),
        model__vit_weights="vit.pth",
        datasets__image_caption__annotations__val="val.json",
        run__output_dir="/proc/run",
    )
    found = [*configuration.check_weights(path), *configuration.check_data(path)]
    assert [each[1] for each in found if each[0] == PROBLEM] == [
        f"model.llm_model: there is no {tmp_path}/gone",
        f"model.vit_weights: there is no {configuration.Path('vit.pth').absolute()}",
        f"datasets.image_caption.annotations.val: there is no {configuration.Path('val.json').absolute()}",
    ]
    assert levels(configuration.check_room(path)).count(PROBLEM) == 1
    (tmp_path / "empty").mkdir()
    assert configuration.weights("llm_model", str(tmp_path / "empty"))[0] == PROBLEM


def test_weights_that_can_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    name, url = "facebook/opt-2.7b", "https://example.org/weights/model.pth"
    assert configuration.weights("opt_model", name)[0] == NOTE
    assert configuration.weights("pretrained", url)[0] == NOTE
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    level, said, way_out = configuration.weights("opt_model", name)
    assert level == PROBLEM and said.endswith("and nothing is downloaded") and "model.opt_model" in way_out
    (tmp_path / "models--facebook--opt-2.7b" / "snapshots" / "0").mkdir(parents=True)
    assert configuration.weights("opt_model", name) == (
        OK,
        f"model.opt_model: {name} in {tmp_path}/models--facebook--opt-2.7b",
    )
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "model.pth").write_bytes(b"x")
    assert configuration.weights("pretrained", url) == (OK, f"model.pretrained: {tmp_path}/hub/checkpoints/model.pth")


def test_paths_of_lavis_configurations_and_shards(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "there.json").write_text(json.dumps([]))
    section = OmegaConf.create(
        {
            "build_info": {
                "annotations": {
                    "train": {
                        "url": ["http://x/a.json", "http://x/b.json"],
                        "storage": ["/none/a.json", "/none/b.json"],
                    },
                    "val": {"storage": str(tmp_path / "there.json")},
                    "test": {"storage": "/none/c.json"},
                },
                "images": {"storage": str(tmp_path)},
            }
        }
    )
    found = list(configuration.files_of("datasets.coco_caption", section))
    assert levels(found) == [NOTE, NOTE, OK, PROBLEM, OK]
    assert found[3][1] == "datasets.coco_caption.build_info.annotations.test.storage: there is no /none/c.json"
    tar = {"shards": str(tmp_path / "{0..0}.tar"), "build_info": {"storage": "/none/{0..3}.tar"}}
    assert list(configuration.files_of("datasets.laion115M", OmegaConf.create(tar))) == [
        (OK, "datasets.laion115M.shards: 1 shards")
    ]
    tar["shards"] = None
    ((level, said),) = configuration.files_of("datasets.laion115M", OmegaConf.create(tar))
    assert level == PROBLEM and said.startswith("none of the 4 shards of datasets.laion115M.build_info.storage exists")


def test_memory_that_is_not_there():
    level, said, way_out = configuration.memory(2**60, on_gpu=False)
    assert level == PROBLEM and said.startswith("about 1073741824.0 GiB") and "run.accum_grad_iters" in way_out
    assert configuration.memory(1, on_gpu=False)[0] == OK
