"""Folders of models here or on a Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download

from lavis_evlgen.embedded import trained
from lavis_evlgen.embedded.trained import WEIGHTS
from lavis_evlgen.errors import ConfigError, EvlgenError, WeightsError, first_line
from lavis_evlgen.interchange.files import CARD, CONFIG, PREPROCESSOR
from lavis_evlgen.interchange.names import is_hub_name


def find(name: str, revision: str | None = None) -> tuple[Path, bool]:
    """The folder of a model, and whether it came from the hub; a local one comes first.

    Args:
        name: a folder, ``embedded:NAME``, or OWNER/NAME on the hub, from where the files of a model's folder are
            fetched if the Hugging Face cache does not have them.
        revision: branch, tag or commit on the hub.

    Raises:
        ConfigError: it is neither. WeightsError: the hub does not have it or cannot be reached.
    """
    folder = Path(trained.resolve(name)).expanduser()
    if folder.is_dir():
        return folder, False
    if folder.exists():
        raise ConfigError(f"{name} is a file: name the folder that holds {CONFIG} and {WEIGHTS}")
    if "/" not in name or not is_hub_name(name):
        raise ConfigError(f"there is no folder {name} (looked in {folder.absolute()})")
    try:
        found = snapshot_download(name, revision=revision, allow_patterns=[WEIGHTS, CONFIG, PREPROCESSOR, CARD])
    except (OSError, ValueError) as error:  # huggingface_hub's own kinds are of these two
        raise WeightsError(
            f"{name!r} is no folder here ({folder.absolute()}), not in the Hugging Face cache "
            f"({constants.HF_HUB_CACHE}) and could not be downloaded ({first_line(error)[:200]}). Put the folder here, "
            "or log in with huggingface-cli login if it is private"
        ) from error
    return Path(found), True


def upload(folder: Path, repo_id: str, private: bool | None, token: str | None, commit_message: str) -> str:
    """Upload a folder to a repository of the hub, made if it is not there; the address of the commit.

    Raises:
        EvlgenError: the hub cannot be reached, or refuses.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    except (OSError, ValueError) as error:
        raise EvlgenError(
            f"could not upload to {repo_id} ({first_line(error)[:200]}): log in with huggingface-cli login, or set "
            "HF_TOKEN to a token that may write there"
        ) from error
    return str(commit.commit_url)
