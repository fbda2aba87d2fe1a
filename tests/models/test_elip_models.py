"""Every ELIP model against the class of LAVIS's that it extends: training, inference, loading."""

import pytest
import torch
from elip_tiny import MODELS, QUEUED, SMALL, build, samples, step

from lavis_evlgen.errors import ConfigError, WeightsError


def assert_equal_steps(ours, theirs, task):
    outputs = [step(model, samples(task)) for model in (ours, theirs)]
    torch.testing.assert_close(outputs[0]["loss"], outputs[1]["loss"], rtol=1e-5, atol=1e-6)
    for (name, weight), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if other.grad is None:
            assert weight.grad is None, name
        else:
            scale = other.grad.abs().max() + 1e-12
            torch.testing.assert_close(weight.grad / scale, other.grad / scale, rtol=1e-5, atol=1e-5, msg=name)
    for (name, buffer), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)  # momentum weights and queues have moved alike


@pytest.mark.parametrize("name", MODELS)
def test_keep_ratios_of_one_equal_lavis(pair, name):
    parent, model = pair(name, elip_training=True, elip_keep=[1, 1, 1])
    assert list(model.state_dict()) == list(parent.state_dict())
    assert_equal_steps(model, parent, name.split("_")[1])
    assert [reduction.num_out for reduction in model.visual_encoder.reductions] == [17] * 3  # it was guided


@pytest.mark.parametrize("name", MODELS)
def test_without_reduction_it_is_lavis(pair, name):
    parent, model = pair(name, elip_training=False)
    assert_equal_steps(model, parent, name.split("_")[1])
    assert model.visual_encoder.reductions == ()


@pytest.mark.parametrize("name", MODELS)
def test_reduced_training_reaches_every_part_that_lavis_trains(pair, name):
    parent, model = pair(name, elip_training=True)
    seen = []
    model.visual_encoder.blocks[-1].register_forward_hook(lambda *call: seen.append(call[2].shape[1]))
    assert torch.isfinite(step(model, samples(name.split("_")[1]))["loss"])
    assert seen == [SMALL] and model.visual_encoder._guide is None
    step(parent, samples(name.split("_")[1]))
    for (weight_name, weight), other in zip(model.named_parameters(), parent.parameters(), strict=True):
        assert (weight.grad is None) == (other.grad is None), weight_name
    assert model.visual_encoder.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_pretraining_reduces_by_default_and_fine_tuning_does_not(keys):
    for name in MODELS:
        model = build(f"elip_{name}", keys(name))
        assert (model.elip_training, model.elip_inference) == ("pretrain" in name, False)


@pytest.mark.parametrize("name", QUEUED)
def test_the_text_pass_is_made_once_and_its_cls_is_the_guide(pair, name):
    _, model = pair(name, elip_training=True)
    text = getattr(model.text_encoder, "bert", model.text_encoder)
    passes, guides = [], []
    text.encoder.register_forward_hook(
        lambda _module, _args, kwargs, _out: passes.append(kwargs.get("mode")), with_kwargs=True
    )
    finish = model.visual_encoder.finish
    model.visual_encoder.finish = lambda tokens, guide, *rest: guides.append(guide) or finish(tokens, guide, *rest)
    output = step(model, samples(name.split("_")[1]))
    assert passes.count("text") == 1
    assert model.text_encoder.training
    assert torch.equal(guides[0], output.intermediate_output.text_embeds[:, 0])  # dropout and all
    assert output.intermediate_output.text_embeds.requires_grad and not guides[0].requires_grad
    assert "forward_text" not in vars(model.text_encoder) and "forward" not in vars(text)


@pytest.mark.parametrize("name", ["albef_vqa", "albef_nlvr", "albef_classification", "blip_vqa", "blip_nlvr"])
def test_an_extra_text_pass_draws_no_random_number(keys, name):
    model = build(f"elip_{name}", keys(name, elip_training=True)).train()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = model.text_cls(samples("nlvr")["text_input"])
    assert torch.equal(torch.get_rng_state(), state) and not first.requires_grad
    assert torch.equal(first, model.text_cls(samples("nlvr")["text_input"]))
    assert all(module.training for module in model.text_encoder.modules())


# inference


@pytest.mark.parametrize("name", ["albef_nlvr", "albef_classification", "blip_nlvr"])
def test_predictions_with_and_without_reduction(pair, name):
    parent, model = pair(name)
    batch = samples(name.split("_")[1])
    for each in (parent, model):
        each.eval()
    with torch.no_grad():
        plain = model.predict(batch)["predictions"]
        assert torch.equal(plain, parent.predict(batch)["predictions"])
        assert model.visual_encoder.reductions == ()
        model.elip_inference = True
        reduced = model.predict(batch)["predictions"]
    assert model.visual_encoder.source_map().num_out == SMALL and not torch.equal(plain, reduced)


@pytest.mark.parametrize("name", ["albef_vqa", "blip_vqa"])
def test_answers_with_and_without_reduction(pair, name):
    parent, model = pair(name)
    answers = ["yes", "no", "red", "blue", "a dog"]
    with torch.no_grad():
        found = [
            m.eval().predict_answers(samples("vqa"), answer_list=answers, inference_method="rank")
            for m in (parent, model)
        ]
        assert found[0] == found[1] and set(found[0]) <= set(answers)
        assert model.visual_encoder.reductions == ()
        model.elip_inference = True
        assert set(model.predict_answers(samples("vqa"), answer_list=answers, inference_method="rank")) <= set(answers)
    assert model.visual_encoder.source_map().num_out == SMALL


# loading


@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_of_lavis_load_unchanged(keys, tmp_path, name, capsys):
    parent = build(name, keys(name), seed=5)
    torch.save({"model": parent.state_dict()}, tmp_path / "lavis.pth")
    if "pretrain" in name:
        model = build(f"elip_{name}", keys(name, load_pretrained=True, pretrained=str(tmp_path / "lavis.pth")))
    else:
        model = build(f"elip_{name}", keys(name, load_finetuned=True, finetuned=str(tmp_path / "lavis.pth")))
    capsys.readouterr()
    for (tensor_name, tensor), other in zip(model.state_dict().items(), parent.state_dict().values(), strict=True):
        if tensor_name != "queue_ptr":
            assert torch.equal(tensor, other), tensor_name


def test_retrieval_starts_from_pretraining(keys, tmp_path):
    pretrained = build("elip_albef_pretrain", keys("albef_pretrain"), seed=5)
    torch.save({"model": pretrained.state_dict()}, tmp_path / "pretrained.pth")
    model = build("elip_albef_retrieval", keys("albef_retrieval", pretrained=str(tmp_path / "pretrained.pth")))
    assert torch.equal(model.vision_proj.weight, pretrained.vision_proj.weight)
    layers = [encoder.encoder.layer[3].output.dense for encoder in (model.text_encoder, pretrained.text_encoder.bert)]
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_nlvr_starts_from_weights_without_momentum_copies(keys, tmp_path):
    """LAVIS's own method fails here with an AttributeError."""
    other = build("elip_albef_nlvr", keys("albef_nlvr"), seed=6)
    torch.save({"model": {k: v for k, v in other.state_dict().items() if "_m." not in k}}, tmp_path / "nlvr.pth")
    model = build("elip_albef_nlvr", keys("albef_nlvr", pretrained=str(tmp_path / "nlvr.pth")))
    assert torch.equal(model.cls_head_m[0].weight, other.cls_head[0].weight)


def test_loading_errors_name_the_way_out(keys, tmp_path):
    with pytest.raises(ConfigError, match="load_finetuned is true but finetuned is empty"):
        build("elip_blip_vqa", keys("blip_vqa", load_finetuned=True))
    with pytest.raises(WeightsError, match=r"checkpoint '.*none.pth': there is no such file"):
        build("elip_blip_vqa", keys("blip_vqa", pretrained=str(tmp_path / "none.pth")))
    torch.save({"model": {"visual_encoder.pos_embed": torch.zeros(1, 17, 24)}}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="has 1 of the .* tensors of ElipBlipVQA, so it belongs to another model"):
        build("elip_blip_vqa", keys("blip_vqa", pretrained=str(tmp_path / "other.pth")))
