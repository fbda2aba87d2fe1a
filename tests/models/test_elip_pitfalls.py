"""What goes wrong in LAVIS when an online ViT gives fewer tokens than its momentum copy, and elsewhere on the way."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from elip_tiny import QUEUED, SMALL, build, samples, step
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.tasks import AnyBatchQueue


@pytest.mark.parametrize("name", ["albef_pretrain", "albef_nlvr"])
def test_masks_of_momentum_tokens_are_as_long_as_they(keys, name, monkeypatch):
    cls = registry.get_model_class(f"elip_{name}")
    broken = keys(name, elip_training=True)
    model = build(f"elip_{name}", broken)
    encoder = getattr(model, cls.encoders_given_masks[0])
    lengths = []

    def record(_module, _args, kwargs):
        tokens, masks = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
        if tokens is None:  # the guide's own pass
            return
        both = zip(tokens, masks, strict=True) if isinstance(tokens, list) else [(tokens, masks)]
        lengths.extend((each.shape[1], mask.shape[1]) for each, mask in both)

    encoder.register_forward_pre_hook(record, with_kwargs=True)
    step(model, samples(name.split("_")[1]))
    assert lengths == ([(17, 17)] if name == "albef_pretrain" else [(SMALL, SMALL)] * 2 + [(17, 17)] * 2)
    monkeypatch.setattr(cls, "encoders_given_masks", ())
    with pytest.raises(RuntimeError):  # what LAVIS alone would do
        step(build(f"elip_{name}", broken), samples(name.split("_")[1]))


@pytest.mark.parametrize("name", ["albef_nlvr", "blip_nlvr"])
def test_both_pictures_of_a_sentence_get_its_guide(keys, name):
    model = build(f"elip_{name}", keys(name, elip_training=True, elip_lookahead=1))
    batch = samples("nlvr")
    guide = model.guide(model.text_cls(batch["text_input"]))
    assert guide.shape == (8, 24) and torch.equal(guide[:4], guide[4:])
    step(model, batch)
    kept = model.visual_encoder.source_map().target
    # the same pictures in the other order, under the same sentences
    step(model, {**batch, "image0": batch["image1"], "image1": batch["image0"]})
    assert torch.equal(model.visual_encoder.source_map().target, kept.roll(4, dims=0))


@pytest.mark.parametrize("name", QUEUED)
def test_queues_take_any_batch_size(pair, name):
    parent, model = pair(name, elip_training=True)
    task = name.split("_")[1]
    for count in (3, 3, 3):
        output = step(model, samples(task, count))
    assert int(model.queue_ptr) == 1  # 9 of 8 places
    image = torch.nn.functional.normalize(model.vision_proj_m(output.intermediate_output.image_embeds_m[:, 0]), dim=-1)
    torch.testing.assert_close(model.image_queue[:, [6, 7, 0]].T, image, rtol=1e-4, atol=1e-5)
    if task == "retrieval":
        assert model.idx_queue[0].tolist() == [2, 1, 2, 0, 1, 2, 0, 1]
    with pytest.raises(AssertionError):
        step(parent, samples(task, 3))


def test_queue_smaller_than_a_batch_and_no_queue_at_all(keys):
    small = build("elip_blip_retrieval", keys("blip_retrieval", queue_size=3))
    step(small, samples("retrieval"))
    assert small.idx_queue[0].tolist() == [0, 1, 2] and int(small.queue_ptr) == 0
    step(build("elip_blip_retrieval", keys("blip_retrieval", queue_size=0)), samples("retrieval"))


@pytest.mark.parametrize("name", QUEUED)
def test_a_batch_of_one_is_refused(keys, name):
    with pytest.raises(ConfigError, match=r"a batch holds one picture, .* raise run.batch_size_train"):
        step(build(f"elip_{name}", keys(name)), samples(name.split("_")[1], 1))


class QueueAlone(AnyBatchQueue, torch.nn.Module):
    """The buffers of a retrieval model, with a queue of five places."""

    def __init__(self):
        super().__init__()
        self.queue_size, self.updates = 5, 0
        for name, rows in (("image_queue", 2), ("text_queue", 2), ("idx_queue", 1)):
            self.register_buffer(name, torch.full((rows, 5), -1.0 if rows == 2 else -1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def _momentum_update(self):
        self.updates += 1


def enqueue_as(rank, folder):
    """Two steps of two processes: with two and one pictures, then with none and three."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = QueueAlone()
    for step_number, mine in enumerate(((2, 1), (0, 3))):
        count = mine[rank]
        if count:
            ids = 100 * step_number + 10 * rank + torch.arange(count)
            features = ids[:, None].expand(-1, 2).to(torch.bfloat16 if step_number else torch.float32)
            model._dequeue_and_enqueue(features, -features, ids[:, None])
        else:
            model.miss_batch()
    torch.save({**model.state_dict(), "updates": model.updates}, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_processes_with_different_numbers_of_pictures_fill_one_queue(tmp_path):
    mp.start_processes(enqueue_as, (str(tmp_path),), nprocs=2, start_method="fork")
    states = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    # 0, 1 and 10 of the first step; 110, 111 and, at the front again, 112 of the second
    for state in states:
        assert state["idx_queue"].tolist() == [[112, 1, 10, 110, 111]] and state["queue_ptr"].item() == 1
        assert torch.equal(state["image_queue"], -state["text_queue"])
        assert state["image_queue"][0].tolist() == state["idx_queue"][0].tolist()
    assert [state["updates"] for state in states] == [1, 0]


def test_a_wider_vit_is_guided_through_the_heads_of_the_contrastive_loss(keys):
    wide = {"vit_config": {"embed_dim": 36, "depth": 6, "num_heads": 3}, "elip_training": True}
    model = build("elip_blip_pretrain", keys("blip_pretrain", **wide))
    step(model, samples("pretrain"))
    assert model.visual_encoder.source_map().num_out == SMALL
    text = torch.randn(2, 24)
    expected = torch.nn.functional.normalize(model.text_proj(text), dim=-1) @ model.vision_proj.weight
    torch.testing.assert_close(model.guide(text), expected)
    with pytest.raises(
        ConfigError, match="ViT is 36 wide and the text encoder 24.*ElipBlipVQA has no projection heads"
    ):
        build("elip_blip_vqa", keys("blip_vqa", **wide))
    build("elip_blip_vqa", keys("blip_vqa", **{**wide, "elip_training": False}))


def test_captioning_has_no_text_to_be_guided_by():
    with pytest.raises(ConfigError, match="BLIP's captioning has no text encoder"):
        registry.get_model_class("elip_blip_caption").from_config(OmegaConf.create({}))


@pytest.mark.parametrize("name", ["albef_pretrain", "albef_vqa", "blip_retrieval"])
def test_momentum_encoders_see_all_tokens_of_their_own_weights(pair, name):
    _, model = pair(name, elip_training=True, vit_grad_ckpt=True, vit_ckpt_layer=6)
    momentum, online = model.visual_encoder_m, model.visual_encoder
    images = samples("pretrain")["image"]
    with torch.no_grad():
        before = momentum(images)
        for weight in online.parameters():
            weight.add_(0.1)
        assert torch.equal(momentum(images), before)  # LAVIS's would call layers of the online ViT
        with online.guided_by(torch.randn(4, 24)):
            assert momentum(images).shape[1] == 17
    assert torch.isfinite(step(model, samples(name.split("_")[1]))["loss"])


@pytest.mark.parametrize("how", [{"vit_grad_ckpt": True, "vit_ckpt_layer": 6}, {"use_grad_checkpoint": True}])
def test_activation_checkpointing(keys, how):
    plain, saving = (build("elip_blip_retrieval", keys("blip_retrieval", elip_training=True, **o)) for o in ({}, how))
    for model in (plain, saving):
        step(model, samples("retrieval"))
    for (name, weight), other in zip(saving.named_parameters(), plain.named_parameters(), strict=True):
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, other[1].grad, msg=name)
