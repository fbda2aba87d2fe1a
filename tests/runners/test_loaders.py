"""Order, sharing among ranks, randomness of samples, and jumps."""

import random

import numpy as np
import pytest
import torch
from tiny_lavis import TinyData, TinyStream
from torch.utils.data import Dataset

from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.evaluation import EvalLoader
from lavis_evlgen.runners.loaders import TrainLoader
from lavis_evlgen.runners.samples import EpochBatches
from lavis_evlgen.runners.settings import RunSettings


def indices(loader: TrainLoader, count: int) -> list[list[int]]:
    return [next(loader)["index"].tolist() for _ in range(count)]


def settings(**values) -> RunSettings:
    return RunSettings(**{"batch_size_train": 4, "seed": 3, **values})


def test_ranks_share_each_global_batch():
    whole = EpochBatches(30, 8, seed=1)
    halves = [iter(EpochBatches(30, 4, 1, rank, 2)) for rank in (0, 1)]
    for batch, _ in zip(whole, range(7), strict=False):
        assert batch == next(halves[0]) + next(halves[1])


def test_an_epoch_shows_every_sample_at_most_once_and_drops_the_tail():
    loader = TrainLoader({"d": [TinyData(14)]}, settings())
    assert loader.epoch_length == 3
    first, second = indices(loader, 3), indices(loader, 3)
    assert len({index for batch in first for index in batch}) == 12
    assert first != second


def test_small_data_set_wraps_around_with_a_warning(caplog):
    loaders = [TrainLoader({"d": [TinyData(3)]}, settings(), rank, 2) for rank in (0, 1)]
    batches = [indices(loader, 1)[0] for loader in loaders]
    assert [len(batch) for batch in batches] == [4, 4]
    assert set(batches[0]) == {0, 1, 2}
    assert "datasets.d has 3 samples, less than one batch over all processes (8)" in caplog.text


def test_jump_gives_the_same_batches_without_loading_the_skipped_ones():
    loader = TrainLoader({"d": [TinyData(14)]}, settings())
    expected = [next(loader) for _ in range(8)]
    touched = []

    class Watched(TinyData):
        def __getitem__(self, index):
            touched.append(index)
            return super().__getitem__(index)

    fresh = TrainLoader({"d": [Watched(14)]}, settings())
    old = {"step": 7, "positions": {"d": {"epoch": 2, "samples": 4}}}  # as checkpoints were once
    assert fresh.load_state_dict(old) == []
    batch = next(fresh)
    assert torch.equal(batch["image"], expected[7]["image"]) and len(touched) == 4
    position = {"epoch": 2, "samples": 8, "rest": False, "global_batch": 4, "length": 14, "seed": 3}
    assert fresh.state_dict() == {"step": 8, "positions": {"d": position}}


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_does_not_depend_on_workers_nor_disturb_other_random_numbers(workers):
    loader = TrainLoader({"d": [TinyData(14)]}, settings(num_workers=workers))
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    batch = next(loader)
    drawn = [torch.rand(1).item(), random.random(), np.random.rand()]
    loader.close()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    assert drawn == [torch.rand(1).item(), random.random(), np.random.rand()]
    with rng.seeded(3, 0, int(batch["index"][0])):
        noise = 0.1 * torch.randn(3, 4, 4)
    data = TinyData(14)
    assert torch.equal(batch["image"][0], data.patterns[int(batch["index"][0]) % 6] + noise)


def test_ratios_hold_and_all_ranks_draw_the_same_data_set():
    data = {"a": [TinyData(40)], "b": [TinyData(40)]}
    ratios = settings(train_dataset_ratios={"a": 3, "b": 1})
    loaders = [TrainLoader(data, ratios, rank, 2) for rank in (0, 1)]
    choices = [[loader.choice(step) for step in range(400)] for loader in loaders]
    assert choices[0] == choices[1]
    assert choices[0].count(0) == 300
    assert loaders[0].epoch_length is None


def test_without_ratios_map_style_data_is_joined():
    loader = TrainLoader({"a": [TinyData(8)], "b": [TinyData(12)]}, settings())
    assert loader.epoch_length == 5 and [stream.name for stream in loader.streams] == ["a+b"]


def test_ratios_must_fit_the_data_sets():
    with pytest.raises(ConfigError, match="train_dataset_ratios and the data sets .* differ in: b, c"):
        TrainLoader({"a": [TinyData(8)], "b": [TinyData(8)]}, settings(train_dataset_ratios={"a": 1, "c": 1}))
    for wrong in (0, -1, "much", float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="must be positive"):
            TrainLoader({"a": [TinyData(8)]}, settings(train_dataset_ratios={"a": wrong}))


def test_stream_is_told_its_position():
    stream = TinyStream(10)
    loader = TrainLoader({"s": [stream]}, settings())
    loader.load_state_dict({"step": 2, "positions": {"s": {"epoch": 0, "samples": 8}}})
    assert indices(loader, 1) == [[8, 9, 0, 1]] or stream.position == 8


def test_empty_training_data():
    with pytest.raises(DataError, match="datasets.d: the training split is empty"):
        TrainLoader({"d": [TinyData(0)]}, settings())
    with pytest.raises(ConfigError, match="run.train_splits"):
        TrainLoader({"d": []}, settings())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_shows_every_sample_once(world_size):
    seen = []
    for rank in range(world_size):
        loader = EvalLoader(TinyData(13), settings(batch_size_eval=4), rank, world_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [index for batch in batches for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(13))


def test_evaluation_leaves_out_empty_batches_and_stops_at_too_many_bad_samples(caplog):
    loader = EvalLoader(TinyData(12, bad=4), settings(batch_size_eval=4, max_bad_share=1.0))
    assert [batch["index"].tolist() for batch in loader] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert "picture_0.jpg: not a picture" in caplog.text
    kept = EvalLoader(TinyData(12, bad=4), settings(batch_size_eval=4), empty_batches=True)
    assert len(next(iter(kept))["bad_samples"]) == 4
    with pytest.raises(DataError, match=r"6 of 10\d samples could not be read, more than run.max_bad_share \(0.05\)"):
        list(EvalLoader(TinyData(200, bad=6), settings(batch_size_eval=1)))


class TwoKinds(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"image": torch.zeros(1), "extra": index}


def test_joined_data_sets_keep_the_shared_keys():
    loader = TrainLoader({"a": [TwoKinds()], "b": [TinyData(4)]}, settings(batch_size_train=8))
    with pytest.raises(RuntimeError, match="stack expects"):
        next(loader)
    loader = TrainLoader({"a": [TwoKinds(), TwoKinds()]}, settings(batch_size_train=8))
    assert sorted(next(loader)) == ["extra", "image"]
