"""Builders of questions and answers: one's own, VQA v2, OK-VQA and GQA."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_evlgen.datasets.local_files import CaptionFilesBuilder, local
from lavis_evlgen.datasets.question_answer import QuestionAnswerDataset, QuestionEvalDataset
from lavis_evlgen.datasets.questions import read_answer_list, read_questions
from lavis_evlgen.datasets.released import ReleasedBuilder
from lavis_evlgen.errors import ConfigError, DataError, nearest
from lavis_evlgen.paths import config_path
from lavis_evlgen.registration_tools import register

SCORINGS = ("auto", "vqa", "gqa", "match")


class QuestionBuilder(CaptionFilesBuilder):
    """A folder of pictures, and one or more files of questions and answers for each split."""

    train_dataset_cls = QuestionAnswerDataset
    eval_dataset_cls = QuestionEvalDataset
    scoring = "auto"
    server = ""
    lemmatize = False

    def split(self, split: str, paths: Iterable[Path], folder: Path) -> Any:
        files = [str(path) for path in paths]
        questions, listed = read_questions(files, folder)
        arguments: dict[str, Any] = {"vis_root": str(folder), "questions": questions}
        if split == "train":
            arguments["answers"] = self.config.get("answers", "random")
        dataset_cls = self.train_dataset_cls if split == "train" else self.eval_dataset_cls
        dataset = dataset_cls(*self.processors(split), **arguments)
        dataset.scoring, dataset.server, dataset.lemmatize = self.scoring, self.server, self.lemmatize
        dataset.candidates = partial(list, listed) if listed else self.candidates()
        self.probe(dataset, files[0])
        return dataset

    def candidates(self) -> Any:
        """What gives the data set's list of answers when it is asked for; None where there is no such list."""
        return None


@register("builder", "visual_question_answer")
class VisualQuestionAnswerBuilder(QuestionBuilder):
    """Your own pictures and questions: a folder ``images`` and one or more files per split in ``annotations``."""

    name = "visual_question_answer"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "visual_question_answer.yaml")}

    def build(self) -> dict[str, Any]:
        self.scoring = self.config.get("scoring", "auto")
        if self.scoring not in SCORINGS:
            raise ConfigError(f"{self.key('scoring')}: {self.scoring!r} is unknown{nearest(self.scoring, SCORINGS)}")
        return super().build()


class ReleasedQuestionsBuilder(QuestionBuilder, ReleasedBuilder):
    """Questions of a public data set, in its official files or in LAVIS's."""

    def candidates(self) -> Any:
        info = OmegaConf.select(self.config, "build_info.answer_list")
        return None if info is None else partial(_answer_list, str(info.storage), self.key("build_info.answer_list"))


def _answer_list(place: str, key: str) -> list[str]:
    """The answers of a json list or of a text file, one a line; DataError where there is no such file."""
    path = local(place)
    if not path.is_file():
        raise DataError(
            f"{key}.storage: {path} does not exist; put LAVIS's answer_list.json there, or name another list of "
            "answers by run.answer_list (a file, or `train` for the answers of the training split)"
        )
    return read_answer_list(path)


@register("builder", "vqav2")
class VQAv2Builder(ReleasedQuestionsBuilder):
    """VQA v2 in its official files."""

    name = "vqav2"
    source = "visualqa.org (unzip v2_Questions_*_mscoco.zip and v2_Annotations_*_mscoco.zip)"
    scoring = server = "vqa"
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "vqav2.yaml")}


@register("builder", "coco_vqa")
class CocoVQABuilder(VQAv2Builder):
    """VQA v2 under LAVIS's name: its files for training, the official ones for evaluation."""

    name = "coco_vqa"
    DATASET_CONFIG_DICT = {
        "default": config_path("datasets", "coco_vqa.yaml"),
        "eval": config_path("datasets", "coco_vqa_eval.yaml"),
    }


@register("builder", "ok_vqa")
class OKVQABuilder(ReleasedQuestionsBuilder):
    """OK-VQA in its official files; LAVIS calls val2014, on which results are reported, ``test``."""

    name = "ok_vqa"
    source = "okvqa.allenai.org"
    scoring = server = "vqa"
    lemmatize = True
    DATASET_CONFIG_DICT = {"default": config_path("datasets", "ok_vqa.yaml")}


@register("builder", "gqa")
class GQABuilder(ReleasedQuestionsBuilder):
    """GQA's questions, as published or as LAVIS's lists; LAVIS's ``balanced_testdev`` calls testdev ``val``."""

    name = "gqa"
    source = "GQA's questions1.2.zip"
    scoring = server = "gqa"
    DATASET_CONFIG_DICT = {
        "default": config_path("datasets", "gqa.yaml"),
        "balanced_val": config_path("datasets", "gqa_balanced_val.yaml"),
        "balanced_testdev": config_path("datasets", "gqa_balanced_testdev.yaml"),
    }
