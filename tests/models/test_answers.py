"""Loss on answers alone and answers chosen from a list, against Hugging Face's own loss."""

import pytest
import torch

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models import answer_scoring

QUESTIONS = ["Question: what color is the cat? Short answer:", "Question: how many? Short answer:", "a man"]
ANSWERS = ["yes", "black and white", "2"]
CANDIDATES = ["no", "yes", "a dog", "a dog runs", "red", "2", "two men", "yes and no", "cat"]


@pytest.fixture(scope="module", params=["opt", "vicuna", "any"])
def model(request, tiny_model):
    return tiny_model(request.param)


def own_loss(model, soft_prompt, question, answer):
    """Hugging Face's loss with labels of -100 on all but the answer, and how many tokens it is the mean of."""
    language = model.language
    question_ids, answer_ids = language.encode_context(question), language.encode_answer(answer, question)
    bos = [language.tokenizer.bos_token_id] if language.bos_first else []
    table = language.embeddings
    parts = [
        table(torch.tensor([bos], dtype=torch.long)),
        soft_prompt,
        table(torch.tensor([question_ids + answer_ids])),
    ]
    embeds = torch.cat(parts, dim=1)
    labels = torch.tensor([[-100] * (embeds.shape[1] - len(answer_ids)) + answer_ids])
    return language.model(inputs_embeds=embeds, labels=labels).loss, len(answer_ids)


def test_tokens_of_an_answer(tiny_model):
    """The families' conventions, by the text that the tokens stand for."""
    for kind, spelled in (("opt", " black cat\n"), ("vicuna", " black cat</s>")):
        language = tiny_model(kind).language
        ids = language.encode_answer("black cat", QUESTIONS[0])
        assert language.tokenizer.decode(ids) == spelled
        assert ids[-1] == language.end_token_id


def test_loss_is_hugging_faces_on_the_answers(model, batch):
    samples = {**batch, "text_input": QUESTIONS, "text_output": ANSWERS}
    loss = model(samples)["loss"]
    with torch.no_grad():
        soft = model.soft_prompt(batch)
        each = [own_loss(model, soft[i : i + 1], q, a) for i, (q, a) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))]
    expected = sum(mean * n for mean, n in each) / sum(n for _, n in each)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    assert model.prompt_proj.weight.grad.abs().max() > 0
    assert samples["text_input"] == QUESTIONS
    model.zero_grad()


def test_questions_get_no_loss(model, batch):
    """Another question changes the loss of its answer only, and an answer counts by its own tokens."""
    one = {**{key: batch[key][:1] for key in ("image",)}, "text_input": QUESTIONS[:1], "text_output": ["yes"]}
    with torch.no_grad():
        soft = model.soft_prompt(one)
        mean, count = own_loss(model, soft, QUESTIONS[0], "yes")
        assert model(one)["loss"].item() == pytest.approx(mean.item(), abs=1e-5)
    assert count == len(model.language.encode_answer("yes", QUESTIONS[0]))


@torch.no_grad()
def test_several_answers_weigh_their_tokens(model, batch):
    """LAVIS's form of a batch: loss of each token by the weight of its answer."""
    samples = {
        **batch,
        "text_input": QUESTIONS,
        "answer": ["yes", "no", "black and white", "2"],
        "weight": torch.tensor([0.75, 0.25, 1.0, 1.0]),
        "n_answers": torch.tensor([2, 1, 1]),
    }
    soft = model.soft_prompt(batch)
    asked = [0, 0, 1, 2]
    each = [own_loss(model, soft[q : q + 1], QUESTIONS[q], a) for q, a in zip(asked, samples["answer"], strict=True)]
    weights = samples["weight"].tolist()
    expected = sum(w * mean * n for w, (mean, n) in zip(weights, each, strict=True))
    expected /= sum(w * n for w, (_, n) in zip(weights, each, strict=True))
    assert model(samples)["loss"].item() == pytest.approx(expected.item(), abs=1e-5)
    single = {**batch, "text_input": QUESTIONS, "text_output": ANSWERS}
    same = {**single, "answer": ANSWERS, "weight": torch.full((3,), 0.3), "n_answers": torch.ones(3, dtype=torch.long)}
    assert model(same)["loss"].item() == pytest.approx(model(single)["loss"].item(), abs=1e-5)


def test_a_long_question_leaves_its_answer_whole(model):
    question = "Question: " + "is there a very big dog or cat on the old bed " * 5 + "? Short answer:"
    language = model.language
    assert len(language.encode_context(question)) > language.max_txt_len
    decoded = language.tokenizer.decode(language.encode_answer("a dog", question), skip_special_tokens=True)
    assert decoded.strip() == "a dog"
    assert "Short answer:" in language.tokenizer.decode(language.encode_context(question))


@torch.no_grad()
def test_rank_is_the_likelihood_of_each_answer(model, batch, monkeypatch):
    monkeypatch.setattr(answer_scoring, "CHUNK", 4)  # so that the candidates need three passes
    soft = model.soft_prompt(batch)
    scores = model.language.rank(soft, QUESTIONS, CANDIDATES)
    for row, question in enumerate(QUESTIONS):
        losses = [own_loss(model, soft[row : row + 1], question, answer) for answer in CANDIDATES]
        expected = torch.tensor([-mean * n for mean, n in losses])
        torch.testing.assert_close(scores[row], expected, rtol=0, atol=2e-4)


@torch.no_grad()
def test_rank_keeps_the_likeliest_first_tokens(model, batch):
    soft = model.soft_prompt(batch)
    scores = model.language.rank(soft, QUESTIONS, CANDIDATES)
    kept = model.language.rank(soft, QUESTIONS, CANDIDATES, keep=3)
    for row, question in enumerate(QUESTIONS):
        first = [model.language.encode_answer(answer, question)[:1] for answer in CANDIDATES]
        contexts = [(model.language.encode_context(question), target) for target in first]
        logits, tokens = model.language.target_logits(soft[row : row + 1].expand(len(first), -1, -1), contexts)
        likely = logits.log_softmax(dim=1)[torch.arange(len(first)), tokens]
        chosen = kept[row].isfinite()
        assert int(chosen.sum()) == 3
        assert likely[chosen].min() >= likely[~chosen].max() - 1e-5
        torch.testing.assert_close(kept[row][chosen], scores[row][chosen])


@torch.no_grad()
def test_ranked_answers(model, batch):
    samples = {**batch, "text_input": ["what is it?", "how many?", "who?"]}
    arguments = {"inference_method": "rank", "answer_list": CANDIDATES, "prompt": "Question: {} Short answer:"}
    answers = model.predict_answers(samples, num_ans_candidates=0, **arguments)
    asked = [arguments["prompt"].format(question) for question in samples["text_input"]]
    best = model.language.rank(model.soft_prompt(batch), asked, CANDIDATES).argmax(dim=1)
    assert answers == [CANDIDATES[number] for number in best]
    assert model.predict_answers({**samples, "text_input": samples["text_input"]}, **arguments) == answers
    lemmatised = model.predict_answers({**samples, "apply_lemmatizer": True}, **{**arguments, "answer_list": ["dogs"]})
    assert lemmatised == ["dog"] * 3


def test_what_ranking_needs(model, batch):
    samples = {**batch, "text_input": QUESTIONS}
    with pytest.raises(ConfigError, match="answer_list"):
        model.predict_answers(samples, inference_method="rank")
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        model.predict_answers(samples, inference_method="ranks")
