"""The language model as a policy: drawing, likelihood, and the gradient that a reward gives."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lavis_evlgen.models.language import LanguageModel
from lavis_evlgen.models.self_critical import SelfCritical

KINDS = ["opt", "vicuna", "any"]
POLICIES = [{}, {"temperature": 0.7}, {"min_new_tokens": 4}, {"temperature": 1.5, "min_new_tokens": 2}]


def drawn(language, prompt_embeds, prompts, policy):
    """Ids as ``sample`` draws them, and the log-probabilities that ``generate`` itself gave, summed per row."""
    limits = {"max_new_tokens": 9, **policy}
    torch.manual_seed(3)
    ids = language.sample(prompt_embeds, prompts, num_samples=2, **limits)
    torch.manual_seed(3)
    found = language._continue(
        prompt_embeds, prompts, do_sample=True, num_return_sequences=2, **{"temperature": 1.0, **limits}, top_k=0,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    assert torch.equal(found.sequences, ids)
    sums = []
    for row, tokens in enumerate(ids.tolist()):
        length = tokens.index(language.end_token_id) + 1 if language.end_token_id in tokens else len(tokens)
        steps = [found.scores[n][row].log_softmax(-1)[tokens[n]] for n in range(length)]
        sums.append(float(torch.stack(steps).double().sum()))
    return ids, torch.tensor(sums)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_likelihood_is_what_generate_gave(tiny_model, batch, kind, policy):
    """Contexts of different lengths, none among them, are padded on the left there and not at all here."""
    model = tiny_model(kind)
    prompts = ["a photo of", "", "two dogs run across the green field"]
    with torch.no_grad():
        prompt_embeds = model.soft_prompt(batch) * 3
        ids, expected = drawn(model.language, prompt_embeds, prompts, policy)
        twice = [prompt for prompt in prompts for _ in range(2)]
        found = model.language.log_likelihood(prompt_embeds.repeat_interleave(2, dim=0), ids, twice, **policy)
    assert ids.shape[0] == 6 and found.dtype is torch.float32
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-5)
    assert found.max() < -1


def test_the_end_token_counts_and_padding_does_not(tiny_model, batch):
    model = tiny_model("opt")
    language = model.language
    end, pad = language.end_token_id, language.pad_token_id
    assert end != pad
    with torch.no_grad():
        prompt_embeds = model.soft_prompt(batch)[:1]
        likelihood = [
            float(language.log_likelihood(prompt_embeds, torch.tensor([row])))
            for row in ([7, 8, end], [7, 8, end, pad, pad], [7, 8, end, 9], [7, 8])
        ]
        logits = language.model(inputs_embeds=language.sequence(
            prompt_embeds, torch.tensor([[*language.encode_context(""), 7, 8]]), torch.ones(1, 3, dtype=torch.long)
        )[0]).logits[0]  # fmt: skip
    assert likelihood[0] == likelihood[1] == likelihood[2]
    assert likelihood[0] - likelihood[3] == pytest.approx(float(logits[-1].log_softmax(-1)[end]), abs=1e-5)


def test_rows_of_different_lengths_do_not_disturb_each_other(tiny_model, batch):
    model = tiny_model("vicuna")
    end = model.language.end_token_id
    rows = [[5, 6, 7, 8, 9, end], [11, end], [12, 13, 14]]
    padded = torch.tensor([row + [end] * (6 - len(row)) if end in row else [*row, 15, 16, 17] for row in rows])
    with torch.no_grad():
        prompt_embeds = model.soft_prompt(batch)
        together = model.language.log_likelihood(prompt_embeds, padded, ["a", "", "a dog in"])
        alone = [
            model.language.log_likelihood(prompt_embeds[[n]], padded[[n]], [prompt])
            for n, prompt in enumerate(["a", "", "a dog in"])
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_no_end_before_its_time_and_none_after(tiny_model, batch):
    model = tiny_model("any")
    language = model.language
    with torch.no_grad():
        bias = nn.Parameter(torch.zeros(language.embeddings.num_embeddings), requires_grad=False)
        bias[language.end_token_id] = 12.0  # nearly always the end
        language.model.lm_head.bias = bias
        torch.manual_seed(0)
        ids = language.sample(model.soft_prompt(batch), max_new_tokens=6, num_samples=5)
        later = language.sample(model.soft_prompt(batch), max_new_tokens=6, num_samples=5, min_new_tokens=3)
        sampled = model.sample(batch, num_samples=5, max_length=6, min_length=4)
        unended = model.sample(batch, max_length=2, min_length=3)
        language.model.lm_head.bias = None
    assert ids.shape == (15, 1) and set(language.decode(ids)) == {""}
    assert later.shape == (15, 4) and not (later[:, :3] == language.end_token_id).any()
    assert sampled.ended == [True] * 15
    assert unended.ended == [False] * 3 and unended.ids.shape == (3, 2)


class Softmax(nn.Module):
    """Toy language model: the logits after a token are that token's embedding; not a real one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.zeros(size, size))
        self.head = nn.Identity()
        self.config = SimpleNamespace()

    def get_input_embeddings(self):
        return self.table

    def get_output_embeddings(self):
        return self.head

    def base_model(self, inputs_embeds, use_cache):
        return (inputs_embeds,)


class NoWords:
    """Toy tokenizer of three tokens, 2 the end."""

    eos_token_id, bos_token_id, pad_token_id = 2, None, None

    def __call__(self, text, add_special_tokens=False):
        return SimpleNamespace(input_ids=[])


class ToyPolicy(SelfCritical, nn.Module):
    """The logits themselves are trained, one row a picture."""

    temporal = None

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.language = LanguageModel(Softmax(3), NoWords())

    def soft_prompt(self, samples):
        return self.logits[:, None]

    def _prompts(self, samples, batch):
        return [""] * batch


def test_gradient_of_one_position_by_hand():
    """p = (1/2, 1/3, 1/6); token 0 was drawn and scored 5, the greedy one 3.5: gradient -(5 - 3.5)(onehot - p)."""
    policy = ToyPolicy([[3.0, 2.0, 1.0]])
    with torch.no_grad():
        policy.logits.log_()
    loss = policy.policy_loss({"sampled_ids": torch.tensor([[0]]), "advantage": torch.tensor([5.0 - 3.5])})
    assert loss.item() == pytest.approx(1.5 * 0.6931472)
    loss.backward()
    assert policy.logits.grad[0].tolist() == pytest.approx([-0.75, 0.5, 0.25])


def test_gradient_of_several_draws_by_hand():
    """Two pictures with uniform policies, two draws each: the mean over the four draws of -A (onehot - 1/3)."""
    policy = ToyPolicy([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    ids = torch.tensor([[0], [1], [2], [2]])
    policy.policy_loss({"sampled_ids": ids, "advantage": torch.tensor([1.0, -2.0, 4.0, 0.0])}).backward()
    first = [(-1 * 2 + 2 * -1) / 12, (-1 * -1 + 2 * 2) / 12, (-1 * -1 + 2 * -1) / 12]
    assert policy.logits.grad[0].tolist() == pytest.approx(first)
    assert policy.logits.grad[1].tolist() == pytest.approx([4 / 12, 4 / 12, -8 / 12])


def test_gradient_of_a_temperature_by_hand():
    """With logits / 2 as the policy's, the gradient has a factor of 1/2 and that policy's p = (1/2, 1/4, 1/4)."""
    policy = ToyPolicy([[16.0, 4.0, 4.0]])
    with torch.no_grad():
        policy.logits.log_()
    samples = {"sampled_ids": torch.tensor([[1]]), "advantage": torch.tensor([2.0])}
    policy.policy_loss({**samples, "temperature": 2.0}).backward()
    assert policy.logits.grad[0].tolist() == pytest.approx([0.5, -0.75, 0.25])


def test_a_sequence_counts_by_the_sum_of_its_tokens():
    """Every token of the toy but the first is drawn from the uniform distribution: log 1/3 for each."""
    policy = ToyPolicy([[0.0, 0.0, 0.0]])
    losses = [
        float(policy.policy_loss({"sampled_ids": torch.tensor([row]), "advantage": torch.tensor([1.0])}))
        for row in ([2], [0, 2], [0, 1, 0, 2])
    ]
    assert losses == pytest.approx([1.0986123, 2 * 1.0986123, 4 * 1.0986123])


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_whole_model(tiny_model, batch, kind):
    """Against a finite difference, and against the log-likelihoods weighted one by one."""
    model = tiny_model(kind)
    prompts = ["", "a photo of", "the"]
    batch = {**batch, "prompt": prompts}
    torch.manual_seed(1)
    sampled = model.sample(batch, num_samples=2, max_length=5)
    advantage = torch.tensor([1.0, -0.5, 0.25, 2.0, -1.5, 0.75])
    samples = {**batch, "sampled_ids": sampled.ids, "advantage": advantage}
    bias = model.prompt_proj.bias
    model(samples)["loss"].backward()
    gradient = bias.grad.clone()

    prompt_embeds = model.soft_prompt(batch)
    one_by_one = [
        model.language.log_likelihood(prompt_embeds[[n // 2]], sampled.ids[[n]], [prompts[n // 2]]) * advantage[n]
        for n in range(6)
    ]
    (manual,) = torch.autograd.grad(-torch.cat(one_by_one).sum() / 6, bias)
    assert torch.allclose(gradient, manual, atol=1e-6)

    direction = gradient / gradient.norm()
    with torch.no_grad():
        ends = []
        for step in (0.01, -0.02):
            bias.add_(direction, alpha=step)
            ends.append(model(samples)["loss"].item())
        bias.add_(direction, alpha=0.01)
    assert (ends[0] - ends[1]) / 0.02 == pytest.approx(float(gradient.norm()), rel=1e-2)


def test_only_the_connector_side_gets_the_policys_gradient(tiny_model, batch):
    model = tiny_model("opt").train()
    sampled = model.sample(batch, num_samples=2, max_length=4)
    model({**batch, "sampled_ids": sampled.ids, "advantage": torch.ones(6)})["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_draws_follow_the_distribution_that_is_scored(tiny_model, batch):
    """Frequencies of first tokens among 4,000 draws against their probabilities, in total variation distance."""
    language = tiny_model("any").language
    size = language.embeddings.num_embeddings
    with torch.no_grad():
        prompt_embeds = tiny_model("any").soft_prompt(batch)[:1] * 5
        torch.manual_seed(0)
        ids = language.sample(prompt_embeds, max_new_tokens=1, num_samples=4000, temperature=0.2)
        frequencies = torch.bincount(ids.flatten(), minlength=size) / 4000
        everything = prompt_embeds.expand(size, -1, -1), torch.arange(size)[:, None]
        right, wrong = (language.log_likelihood(*everything, temperature=t).exp() for t in (0.2, 1.0))
    assert right.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (frequencies - right).abs().sum() / 2 < 0.08 < 0.2 < (frequencies - wrong).abs().sum() / 2


def test_frozen_features_take_the_place_of_images(tiny_model, batch):
    model = tiny_model("opt")
    seen = model.with_frozen_features(batch)
    assert "image" not in seen and seen["vision_features"].shape[0] == 3 and "image" in batch
    assert model(seen)["loss"].item() == model(batch)["loss"].item()
    assert model.with_frozen_features(seen) is seen
    trained = tiny_model("opt", freeze_vit=False)
    assert trained.with_frozen_features(batch) is batch
