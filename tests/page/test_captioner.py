"""Captions, answers and maps by several people at once."""

import io
import threading
from dataclasses import replace

import pytest
from page.conftest import tokens_by_layer
from PIL import Image
from video_files import write_clip

from lavis_evlgen.asking import QUESTION_PROMPT
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.page.captioner import BusyError, Captioner
from lavis_evlgen.page.uploads import Limits

PICTURE = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB")


@pytest.fixture
def upload(captioner):
    data = io.BytesIO()
    PICTURE.save(data, "PNG")
    return captioner.read(data.getvalue(), "a.png").result()


def test_the_caption_is_that_of_the_command_line(captioner, upload):
    image = captioner.served[0]
    (expected,) = image.model.generate({"image": image.process(PICTURE)[None]}, num_beams=5, max_length=30)
    answer = captioner.ask(upload).result()
    assert answer.text == expected != ""
    assert answer.tokens == image.trained_tokens and answer.schedule == image.model.connector.schedule
    assert answer.shown is None and answer.seconds == answer.see_seconds + answer.write_seconds > 0


def test_an_answer_is_that_of_the_command_line(captioner, upload):
    image = captioner.served[0]
    batch = {"image": image.process(PICTURE)[None], "text_input": ["what is it?"]}
    (expected,) = image.model.predict_answers(batch, num_beams=5, max_len=10, prompt=QUESTION_PROMPT)
    assert captioner.ask(upload, question=" what is it? ").result().text == expected
    assert captioner.ask(upload).result().text != expected
    for question in ("", "   ", "x" * 301):
        with pytest.raises(ConfigError, match="the question must have 1 to 300 characters"):
            captioner.ask(upload, question=question)
    captioner.ask(upload, question="{0} {}{").result()
    other = Captioner(captioner.served, prompt="{} Answer:")
    batch["text_input"] = ["what is it? Answer:"]
    (bare,) = image.model.predict_answers(batch, num_beams=5, max_len=10)
    assert other.ask(upload, question="what is it?").result().text == bare
    other.close()
    with pytest.raises(ConfigError, match="--prompt 'Answer:' must hold {} once, where the question goes"):
        Captioner(captioner.served, prompt="Answer:")


def test_a_model_that_was_trained_on_questions_is_asked_in_the_same_words(captioner, upload, monkeypatch):
    image = captioner.served[0]
    monkeypatch.setattr(image.model, "question_prompt", "Q: {} A:")
    batch = {"image": image.process(PICTURE)[None], "text_input": ["what?"]}
    said = [image.model.predict_answers(batch, num_beams=5, prompt=prompt)[0] for prompt in ("Q: {} A:", "{}!")]
    asked = [captioner, Captioner(captioner.served, prompt="{}!")]
    assert [each.ask(upload, question="what?").result().text for each in asked] == said and said[0] != said[1]
    asked[1].close()


def test_models_and_budgets_differ(captioner, upload):
    image, other, _ = captioner.served
    texts = {captioner.ask(upload, each.name).result().text for each in (image, other)}
    assert len(texts) == 2
    answers = [captioner.ask(upload, tokens=tokens).result() for tokens in (image.fewest_tokens, 17)]
    assert [each.tokens for each in answers] == [image.fewest_tokens, 17]
    assert answers[0].text != answers[1].text and answers[1].schedule == [0] * len(answers[0].schedule)
    with pytest.raises(ConfigError, match="is not served here"):
        captioner.ask(upload, "gone")
    with pytest.raises(ConfigError, match="tokens: 17 cannot be merged into 0"):
        captioner.ask(upload, tokens=0)


def test_maps_follow_the_budget(captioner, upload):
    image = captioner.served[0]
    shown = captioner.ask(upload, tokens=9, maps=True).result().shown
    (layers,) = shown.states.values()
    assert [each.num_tokens for each in layers] == tokens_by_layer(image, 9)[1:]
    assert all(each.maps.shape == (1, 4, 4) for each in layers) and shown.num_maps == 1
    assert upload.inputs[image.name].states == {}, "the upload itself stays as it is"


def test_a_connector_without_maps_still_captions(captioner, upload, tiny_model):
    fixed = replace(captioner.served[0], model=tiny_model("any", connector="qformer", num_query_token=4))
    alone = Captioner([fixed])
    answer = alone.ask(upload, maps=True).result()
    assert answer.shown is None and answer.tokens == 4 and answer.schedule is None
    alone.close()


def test_clips(captioner, tmp_path):
    clip = captioner.read(write_clip(tmp_path / "clip.mp4", 9).read_bytes(), "clip").result()
    video = captioner.served[2]
    batch = clip.inputs[video.name].samples
    (expected,) = video.model.generate(batch, num_beams=5, max_length=30)
    answer = captioner.ask(clip, video.name, maps=True).result()
    assert answer.text == expected and answer.shown.num_maps == 1 and len(answer.shown.frames) == 4


def test_everybody_gets_the_answer_to_their_own_budget(captioner, upload):
    """What 24 people are told at the same time is what each would be told alone."""
    image, other, video = captioner.served
    asked = [(each.name, tokens) for each in (image, other, video) for tokens in (3, 9, 13, 17)] * 2
    alone = {each: captioner.ask(upload, *each).result().text for each in set(asked)}
    assert len(set(alone.values())) > 6
    found = [None] * len(asked)

    def person(number):
        found[number] = captioner.ask(upload, *asked[number]).result().text

    people = [threading.Thread(target=person, args=(number,)) for number in range(len(asked))]
    for each in people:
        each.start()
    for each in people:
        each.join()
    assert found == [alone[each] for each in asked]


def test_too_many_are_told_so_and_the_rest_is_served(captioner, upload):
    full = Captioner(captioner.served, most_waiting=3)
    gate = threading.Event()
    full._worker.submit(gate.wait)
    jobs = [full.ask(upload) for _ in range(3)]
    with pytest.raises(BusyError, match="3 requests are waiting already"):
        full.ask(upload)
    jobs[1].cancel()
    last = full.ask(upload)
    gate.set()
    assert jobs[0].result().text == jobs[2].result().text == last.result().text
    full.close()


def test_what_is_wrong_comes_with_the_result_and_blocks_nobody(captioner, upload):
    broken = captioner.read(b"no picture", "a.png")
    with pytest.raises(DataError, match="this is no picture"):
        broken.result()
    small = Captioner(captioner.served, Limits(megabytes=0.01))
    with pytest.raises(DataError, match=r"the file has 0\.0 MB; the page takes up to 0\.01 MB"):
        small.read(bytes(20_000), "a.png")
    small.close()
    assert captioner.ask(upload).result().text


def test_warming_up_asks_every_model(captioner):
    captioner.warm_up()
