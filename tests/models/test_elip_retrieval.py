"""Retrieval scores: LAVIS's where nothing is reduced, and those of every pair by itself where texts reduce."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elip_tiny import CAPTIONS, IMAGE_SIZE, build, tiny_keys
from lavis.tasks.retrieval import RetrievalTask

TEXTS = [*CAPTIONS, "two big dogs", "the ball is red", "what is in the picture"]


class Loader(list):
    """Batches of pictures, with the data set's attributes that retrieval reads."""

    dataset = SimpleNamespace(text=TEXTS, image=[f"{number}.png" for number in range(5)])


@pytest.fixture
def loader():
    images = torch.randn(5, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    return Loader({"image": part} for part in images.split(2))


def lively(model):
    """Weights large enough for texts to matter."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embeddings" not in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    return model.eval()


@pytest.fixture(params=["albef", "blip"])
def models(request, tmp_path):
    keys = tiny_keys(tmp_path, request.param, elip_lookahead=1)
    return tuple(lively(build(f"{start}{request.param}_retrieval", keys)) for start in ("", "elip_"))


def scores(model, loader, k_test=3):
    with torch.no_grad():
        return model.compute_sim_matrix(loader, SimpleNamespace(k_test=k_test))


def test_without_reduction_scores_are_those_of_lavis(models, loader):
    for ours, theirs in zip(scores(models[1], loader), scores(models[0], loader), strict=True):
        assert np.array_equal(ours, theirs)
    assert models[1].visual_encoder.reductions == ()


def test_guided_scores_with_keep_ratios_of_one_are_those_of_lavis(models, loader):
    parent, model = models
    model.elip_inference = True
    model.visual_encoder.guidance = type(model.visual_encoder.guidance)((1, 2, 5), (1, 1, 1))
    for ours, theirs in zip(scores(model, loader), scores(parent, loader), strict=True):
        assert ours.shape == theirs.shape and (ours > -100).sum() == 3 * len(ours)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_guided_scores_are_those_of_each_pair_by_itself(models, loader):
    model = models[1]
    model.elip_inference = True
    images_to_texts, texts_to_images = scores(model, loader)
    assert model.visual_encoder.reductions
    images = torch.cat([batch["image"] for batch in loader])
    entry = getattr(model.tokenizer, "enc_token_id", model.tokenizer.cls_token_id)
    with torch.no_grad():
        for row in range(5):
            for column in range(len(TEXTS)):
                tokens = model.tokenizer(
                    [TEXTS[column]], padding="max_length", max_length=35, truncation=True, return_tensors="pt"
                )
                text = model.text_encoder.forward_text(tokens).last_hidden_state[:, 0]
                full = model.visual_encoder.forward_features(images[row : row + 1])[:, 0]
                similarity = F.normalize(model.vision_proj(full)) @ F.normalize(model.text_proj(text)).T
                with model.visual_encoder.guided_by(text):
                    reduced = model.visual_encoder.forward_features(images[row : row + 1])
                tokens.input_ids[:, 0] = entry
                matched = model.text_encoder.forward_automask(tokens, reduced).last_hidden_state[:, 0]
                expected = float(similarity + model.itm_head(matched)[:, 1:])
                for found in (images_to_texts[row, column], texts_to_images[column, row]):
                    assert found == -100 or found == pytest.approx(expected, abs=1e-4)
    assert (images_to_texts > -100).sum() == 15 and (texts_to_images > -100).sum() == 21


def test_texts_change_what_is_seen_and_blocks_before_run_once(models, loader):
    plain = scores(models[0], loader)
    model = models[1]
    model.elip_inference = True
    runs = {0: 0, 1: 0}
    for number in runs:
        model.visual_encoder.blocks[number].register_forward_hook(
            lambda _block, args, _out, number=number: runs.__setitem__(number, runs[number] + len(args[0]))
        )
    guided = scores(model, loader)
    assert not np.allclose(guided[0], plain[0], atol=1e-3)
    # the first reduction stands before block 1, which runs for every picture and for every re-ranked pair
    assert runs == {0: 5, 1: 5 + 3 * (5 + len(TEXTS))}


def test_lavis_task_ranks_by_them(models, loader, tmp_path):
    from lavis.common.registry import registry

    registry.mapping["paths"]["output_dir"] = str(tmp_path)
    models[1].elip_inference = True
    loader.dataset = SimpleNamespace(
        text=TEXTS[:5],
        image=Loader.dataset.image,
        txt2img={number: number for number in range(5)},
        img2txt={number: [number] for number in range(5)},
    )
    with torch.no_grad():
        found = RetrievalTask(SimpleNamespace(k_test=5)).evaluation(models[1], loader)
    assert found["txt_r5"] == found["img_r5"] == 100 and 0 <= found["txt_r1"] <= 100
    assert (tmp_path / "evaluate.txt").is_file()
