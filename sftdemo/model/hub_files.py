"""The process that fetches a model's files from the Hub: `python -m sftdemo.model.hub_files ID REVISION FOLDER FILE…`."""

from __future__ import annotations

import sys


def fetch(hub_id: str, revision: str, folder: str, names: list[str]) -> None:
    """Put these files of a repository into a folder; the token is in the environment, or there is none."""
    from huggingface_hub import hf_hub_download

    for name in names:
        hf_hub_download(hub_id, name, revision=revision, local_dir=folder)


if __name__ == "__main__":
    fetch(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
