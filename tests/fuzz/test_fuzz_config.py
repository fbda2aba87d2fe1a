"""Configurations: yaml of the right shape with something wrong in it, damaged bytes, hostile tags and references."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from guard import put
from hypothesis import strategies as st
from mutations import damaged, encodings, mutated, one_of_each
from omegaconf import OmegaConf

from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.config import ModelConfig
from lavis_evlgen.project_yaml import Project
from lavis_evlgen.runners.settings import RunSettings

CONFIG = {
    "paths": {"data": "data", "images": "${paths.data}/images"},
    "model": {"arch": "evlgen", "model_type": "custom", "llm_model": "embedded:smollm2-135m", "tome_r": [19, 1.0]},
    "datasets": {
        "image_caption": {
            "images": "${paths.images}",
            "annotations": {"train": "train.jsonl", "val": ["val.jsonl"]},
            "vis_processor": {"train": {"name": "blip2_image_train", "image_size": 224}},
            "text_processor": {"train": {"name": "blip_caption"}},
        }
    },
    "run": {
        "task": "captioning",
        "max_iters": 100,
        "health_freq": 50,
        "init_lr": 1e-4,
        "output_dir": "outputs/x",
        "train_splits": ["train"],
        "valid_splits": ["val"],
        "train_dataset_ratios": {"image_caption": 1.0},
        "device": "cpu",
        "num_beams": 3,
    },
}
COMPARISON = {
    **CONFIG,
    "compare": {
        "seeds": [1],
        "turn": 3,
        "reference": "a",
        "claims": [{"arm": "a", "of": "b", "metric": "CIDEr", "share_of_time": 0.5}],
        "tune": {"key": "run.init_lr", "values": [1e-3, 1e-4], "steps": 50},
        "arms": {
            "a": {"title": "A", "model": {"tome_r": 3}},
            "b": {"stages": [{"title": "one", "run": {"max_iters": 50}}, {"model": {"pretrained": "{previous}"}}]},
        },
    },
}


def check_config_file(guard: Any, data: bytes) -> None:
    """A configuration that is taken can be written down, and names no file that would land elsewhere."""
    path = str(put(guard.inside / "a.yaml", data))
    config = guard.read(read_config, path, [])
    plan = guard.read(read_plan, path)
    for error in (config, plan):
        if isinstance(error, ConfigError):
            assert str(error).startswith(("a.yaml", path, "arm ", "compare", "run.", "model.", "datasets.")), str(error)
    if isinstance(config, ConfigError):
        return
    (guard.inside / "copy.yaml").write_text(OmegaConf.to_yaml(config), encoding="utf-8")
    guard.read(check_config, config)
    settings = guard.read(RunSettings.from_config, config.run)
    if not isinstance(settings, ConfigError):
        for split in (*settings.train_splits, *settings.valid_splits, *settings.test_splits):
            assert (guard.inside / split).parent == guard.inside and split != ".."
    guard.read(ModelConfig.parse, OmegaConf.to_container(config.model))
    if not isinstance(plan, ConfigError):
        for arm in plan.arms:
            assert (plan.out / arm.name).parent == plan.out and arm.name != ".."


def as_yaml(document: Any) -> bytes:
    """Yaml as PyYAML writes it; JSON, which is yaml too, where it has no form for something."""
    try:
        return yaml.safe_dump(document, allow_unicode=True).encode()
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError):
        return json.dumps(document).encode()


def test_configurations(fuzz, guard):
    documents = one_of_each(mutated, [CONFIG, COMPARISON]).map(as_yaml)
    texts = st.tuples(encodings, documents).map(lambda both: both[0](both[1]))
    fuzz(lambda data: check_config_file(guard, data), texts, 60)


TAGS = [
    "int",
    "float",
    "bool",
    "null",
    "timestamp",
    "binary",
    "set",
    "omap",
    "pairs",
    "merge",
    "value",
    "seq",
    "map",
    "str",
]


def test_bytes(fuzz, guard):
    plain = [as_yaml(CONFIG), as_yaml(COMPARISON)]
    tagged = st.tuples(
        st.sampled_from(TAGS), st.sampled_from(["", "x", "[]", "{}", "1", '"\\ud800"', "0x" + "f" * 9000])
    )
    hostile = tagged.map(lambda both: plain[0].replace(b"max_iters: 100", f"max_iters: !!{both[0]} {both[1]}".encode()))
    fuzz(lambda data: check_config_file(guard, data), one_of_each(damaged, plain) | hostile, 60)


REFERENCES = r"""
${run.seed} ${model} ${..task} ${.x} ${oc.env:HOME} ${oc.env:NONE,x} ${oc.decode:'1'} ${oc.create:[1,2]} ${run
${oc.dict.keys:run} ${oc.select:run} ${oc.decode:${oc.env:HOME}} ${${run.task}} \${run.seed} ${run.train_splits[0]}
${datasets.image_caption.images} ${run.x:1} ${a}${a}
""".split()  # noqa: SIM905  shorter


def test_references(fuzz, guard):
    documents = mutated(CONFIG, most=6, wrong=st.sampled_from(REFERENCES))
    fuzz(lambda document: check_config_file(guard, as_yaml(document)), documents, 40)


# each line holds the one before it ten times: nine lines are a thousand million
ALIASES = "x0: &x0 [1]\n" + "".join(f"x{n + 1}: &x{n + 1} [{', '.join([f'*x{n}'] * 10)}]\n" for n in range(9))
TEXTS = "x0: aaaa\n" + "".join(f"x{n + 1}: " + f"${{x{n}}}" * 10 + "\n" for n in range(9))
LISTS = "x0: [1]\n" + "".join(f"x{n + 1}: [" + ", ".join([f"'${{x{n}}}'"] * 10) + "]\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch CANARY']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!python/object/new:subprocess.Popen [['touch', 'CANARY']]", "could not determine a constructor"),
        ("run: {max_iters: !!int ''}", "not valid yaml"),  # IndexError before
        ("run: {max_iters: !!bool maybe}", "not valid yaml"),  # KeyError
        ("run: {max_iters: !!timestamp x}", "not valid yaml"),  # AttributeError
        ("a: " + "[" * 50_000, "not valid yaml"),  # RecursionError
        ("a: " + "{a: " * 2_000 + "1" + "}" * 2_000, "nested|not valid yaml"),
        (ALIASES, "expan"),
        ("x: &x [*x]", "recursive|undefined|not valid"),
        (TEXTS, "stand for more than 4,194,304"),
        (LISTS, "stand for more than 4,194,304"),
        ("a: ${b}\nb: ${a}", "refers to itself"),
        ("a: {b: '${a}'}", "refers to itself"),
        ("a: ${oc.create:[1]}", "others are not allowed"),
        ("a: ${oc.decode:'$'}{oc.env:HOME}", "others are not allowed"),
        ("a: ${nothing}", "'nothing' not found"),
        ("a: \\${b}\nb: 1", "cannot be part of a string"),  # would be resolved by the next copy
        ("run: {seed: 0x" + "f" * 10_000 + "}", "too many digits"),
        ("1: {}", "key '1', which is not a string"),
        ("run: {x: !!binary aGFsbG8=}", "run.x is a bytes"),
        ('run: {output_dir: "a\\0b"}', "run.output_dir holds a character that cannot be written as UTF-8"),
        ("- a", "must hold the sections"),
    ],
)  # fmt: skip
def test_hostile_yaml(guard, text, message):
    path = put(guard.inside / "a.yaml", text.replace("CANARY", str(guard.canary)).encode())
    error = guard.read(read_config, str(path), [])
    assert isinstance(error, ConfigError)
    assert str(error).startswith(str(path))
    with pytest.raises(ConfigError, match=message):
        raise error


BASE = {key: CONFIG[key] for key in ("paths", "model", "datasets", "run")}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("run.valid_splits", ["../../escaped"], "cannot name a split"),
        ("run.train_splits", [["a"]], "cannot name a split"),
        ("run.init_lr", float("nan"), "run.init_lr: nan is not of type float"),
        ("run.seed", 2**63, "is not of type int"),
        ("run.num_threads", -1, "run.num_threads must be at least 0"),
        ("run.train_dataset_ratios", {"image_caption": "x"}, "expected a number from 0 on"),
        ("model.arch", {"a": 1}, "model.arch .* is unknown"),
        ("model.model_type", [1], "model.model_type .* is unknown"),
        ("run.lr_sched", {"a": 1}, "is not of type str"),
        ("datasets.image_caption", "text", "datasets.image_caption must hold keys and values"),
        ("datasets.image_caption.vis_processor", ["x"], "vis_processor must hold keys and values"),
        ("datasets.image_caption.type", ["x"], "datasets.image_caption.type .* is unknown"),
    ],
)
def test_values_of_the_wrong_kind_are_named(key, value, message):
    config = OmegaConf.create(BASE)
    OmegaConf.update(config, key, value, merge=False)
    OmegaConf.resolve(config)
    del config["paths"]
    with pytest.raises(ConfigError, match=message):
        RunSettings.from_config(config.run)
        check_config(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tome_r", "19"),
        ("tome_r", [19, "x"]),
        ("freeze_vit", 1),
        ("image_size", True),
        ("vit_config", []),
        ("prompt", 5),
    ],
)
def test_model_values_of_the_wrong_kind_are_named(key, value):
    with pytest.raises(ConfigError, match=f"model.{key}: .*, expected"):
        ModelConfig.parse({key: value})
    assert ModelConfig.parse({"tome_r": [19, 1.0], "drop_path_rate": 0, "prompt": None}).tome_r == [19, 1.0]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"arms": {"..": {}}}, "compare.arms.*: a name is made of letters"),
        ({"arms": {"a": {"model": "arch: x"}}}, "compare.arms.a.model: .*expected keys and values"),
        ({"arms": {"a": {"stages": 5}}}, "compare.arms.a.stages: '5', expected a list"),
        ({"claims": 5}, "compare.claims: '5', expected a list"),
        ({"reference": ["a"]}, "compare.reference: .*expected a string"),
        ({"tune": {"key": 5, "values": [1], "steps": 5}}, "compare.tune.key: '5', expected a string"),
        ({"tune": {"key": "a", "values": "x", "steps": 5}}, "compare.tune.values: 'x', expected a list"),
        ({"seeds": [True]}, "compare.seeds: .*expected whole numbers"),
    ],
)
def test_arms_of_the_wrong_kind_are_named(guard, section, message):
    content = {**COMPARISON, "compare": {"arms": {"a": {}, "b": {}}, **section}}
    with pytest.raises(ConfigError, match=message):
        read_plan(str(put(guard.inside / "a.yaml", as_yaml(content))))


def test_a_sweep_stays_in_its_folder(guard):
    path = put(guard.inside / "a.yaml", as_yaml(COMPARISON))
    with pytest.raises(ConfigError, match="write KEY=VALUE,VALUE"):
        read_plan(str(path), sweep="../../escaped=1,2")


names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=12)


def test_new_projects(fuzz, guard):
    """Whatever folder and files are called, the yaml that is written names them."""

    def check(case: tuple[str, str, str]) -> None:
        name, folder, llm = case
        project = Project(name, "image", False, folder, [f"{name}.jsonl"], ["v.jsonl"], 10, 5, llm=llm)
        path = put(guard.inside / "p.yaml", project.yaml("command").encode())
        config = guard.read(read_config, str(path), [])
        if "${" in f"{name}{folder}{llm}":
            return
        assert not isinstance(config, ConfigError), config
        assert config.datasets.image_caption.images == folder
        assert config.datasets.image_caption.annotations.train == f"{name}.jsonl"
        assert config.model.llm_model == llm
        assert Path(config.run.output_dir) == Path("outputs", name)

    fuzz(check, st.tuples(names, names, names), 40)
