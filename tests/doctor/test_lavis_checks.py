"""Repairs in force or undone, and the small training."""

import math
import re

import numpy as np
import torch
from lavis.models import med
from lavis.models.blip2_models import blip2_opt

from lavis_evlgen.doctor import lavis_checks, smoke
from lavis_evlgen.doctor.findings import OK, PROBLEM, examine
from lavis_evlgen.lavis_repairs import REPAIRS
from lavis_evlgen.lavis_replacements import OPTForCausalLM


def test_every_repair_is_named_and_in_force():
    found = list(lavis_checks.check_repairs())
    assert [each[0] for each in found] == [OK] * len(REPAIRS) and len(REPAIRS) == 10
    names = [each[1].split(":")[0] for each in found]
    assert names[0] == "blip2_opt" and "albef_pretrain, albef_vqa, blip_pretrain" in names and names[-1] == "results"
    without_need = [each[1].split(":")[0] for each in found if "without need here" in each[1]]
    assert ("half precision" in without_need) == torch.cuda.is_available()
    assert ("albef_pretrain, alpro_retrieval" in without_need) == np.__version__.startswith("1.")


def test_a_repair_that_was_undone(monkeypatch):
    monkeypatch.setattr(blip2_opt, "OPTForCausalLM", OPTForCausalLM.__mro__[2])
    monkeypatch.delattr(med.BertPreTrainedModel, "from_pretrained")
    found = list(lavis_checks.check_repairs())
    undone = [each[1].split(" is not repaired")[0] for each in found if each[0] == PROBLEM]
    assert undone == ["blip2_opt", "albef_pretrain, albef_vqa, blip_pretrain"]


def test_the_small_training():
    (found,) = examine("training", smoke.check_training)
    assert found.level == OK, found.text
    losses = [float(each) for each in re.search(r"losses: ([\d. ]+)", found.text)[1].split()]
    assert len(losses) == 6 and losses[-1] < losses[0] and math.isclose(losses[0], math.log(8), rel_tol=0.2)


def test_a_training_that_learns_nothing(monkeypatch):
    config = smoke._config

    def without_learning(folder):
        content = config(folder)
        content["run"]["init_lr"] = 0.0
        return content

    monkeypatch.setattr(smoke, "_config", without_learning)
    (found,) = examine("training", smoke.check_training)
    assert found.level == PROBLEM and "a tiny model does not learn (losses: 2." in found.text
