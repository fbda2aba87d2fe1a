"""What the README tells people to do works."""

import re
import shlex
from pathlib import Path

from omegaconf import OmegaConf
from reports.finished_run import make_data

from lavis_evlgen import cli, launch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_path_exists():
    names = re.findall(r"(?:lavis|lavis_evlgen|projects|configs|docs|tests)/[\w./-]+\.(?:py|yaml|md|png)", README)
    assert len(names) > 8
    missing = [name for name in {*names, *re.findall(r"\]\(([\w./-]+)\)", README)} if not (ROOT / name).exists()]
    assert not missing


def test_commands_are_ones_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    parser = cli.build_parser()
    seen = 0
    for line in "\n".join(blocks("sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in makefile
        elif "lavis_evlgen.cli" in words:
            args, rest = parser.parse_known_args(words[words.index("lavis_evlgen.cli") + 1 :])
            assert not rest or args.passes_on, line
        elif "--cfg-path" in words and words[words.index("--cfg-path") + 1] != "my.yaml":
            verb = next(word for word in words if word.startswith("lavis/"))
            args = launch.parse_args(words[words.index("--cfg-path") :], evaluate="evaluate" in verb)
            launch.read_config(str(ROOT / args.cfg_path), args.options)
        else:
            continue
        seen += 1
    assert seen >= 7


def test_training_on_ones_own_pictures(tmp_path, tiny_config, monkeypatch):
    """The README's yaml, with a tiny ViT and language model in the place of downloaded ones."""
    written = next(block for block in blocks("yaml") if "my.yaml" in block)
    config = OmegaConf.to_container(OmegaConf.create(written))
    files = make_data(tmp_path / "pictures", {"train": 4, "val": 2}, labels=False)
    config["datasets"]["image_caption"]["annotations"] = files
    processor = {"name": "blip_image_eval", "image_size": 56}
    config["datasets"]["image_caption"]["vis_processor"] = {"train": processor, "eval": processor}
    config["model"].update(tiny_config("any"))
    config["run"].update(max_epoch=1, batch_size_train=2, num_workers=0, max_len=4, num_beams=1)
    OmegaConf.save(OmegaConf.create(config), tmp_path / "my.yaml")
    monkeypatch.chdir(tmp_path)
    metrics = launch.start(["--cfg-path", "my.yaml"], evaluate=False)
    assert metrics["val"]["captions"] == 2 and (tmp_path / "outputs/mine/model.pth").is_file()
