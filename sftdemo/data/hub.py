"""Data sets of the Hugging Face Hub, fetched by the library `datasets` in a process of its own and kept as Parquet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.runs import home

PATIENCE = 8.0
_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?::([\w.-]*)(?::([\w.-]+))?)?")
_REQUEST_SECONDS = "10"


def parse(source: str) -> tuple[str, str | None, str | None] | None:
    """("owner/name", subset or None, split or None), if the source looks like a Hub id: "owner/name:subset:split"."""
    match = _ID.fullmatch(source)
    return (match[1], match[2] or None, match[3]) if match else None


def fetch(name: str, subset: str | None, split: str | None = None) -> Path:
    """A folder under SFTDEMO_HOME with one Parquet file a split; what is there already is not fetched again.

    A split asked for by name stands alone in its folder, as `rows.parquet`, and is divided anew.

    Raises UserError if the Hub doesn't answer within 8 seconds, or the download fails.
    """
    folder_name = "--".join([name, *([subset or ""] if subset or split else []), *([split] if split else [])])
    folder = home() / "hub" / "sets" / re.sub(r"[^\w.-]+", "--", folder_name)
    if not folder.is_dir():
        _ask(name)
        _download(name, subset, folder, split)
    return folder


def _ask(name: str) -> None:
    """Return once the Hub has answered, whatever it says. DNS has no time limit of its own, so a thread is waited for."""
    import http.client
    import urllib.error
    import urllib.request

    answered = threading.Event()
    url = f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/api/datasets/{name}"

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, http.client.HTTPException):
            return
        answered.set()

    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("0", "", "false", "no"):
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(PATIENCE)
    if not answered.is_set():
        raise UserError(
            f"There is no file or sample {name!r}, and the Hugging Face Hub doesn't answer; "
            "check the path or the network, or download the data set's file yourself and give its path."
        )


def _download(name: str, subset: str | None, folder: Path, split: str | None = None) -> None:
    """The library keeps its caches where the environment says at import, hence the child process."""
    caches = home() / "hub"
    places = {
        "HF_HUB_CACHE": caches / "hub",
        "HF_DATASETS_CACHE": caches / "datasets",
        "HF_XET_CACHE": caches / "xet",
        "HF_ASSETS_CACHE": caches / "assets",
        "HF_MODULES_CACHE": caches / "modules",
    }
    environment = {
        **os.environ,
        **{key: str(path) for key, path in places.items()},
        "HF_HUB_DOWNLOAD_TIMEOUT": _REQUEST_SECONDS,
        "HF_HUB_ETAG_TIMEOUT": _REQUEST_SECONDS,
    }
    command = [sys.executable, "-m", "sftdemo.data.hub", name, subset or "", str(folder), split or ""]
    root = str(Path(__file__).parents[2])
    process = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        reason = re.sub(r"^[\w.]+(Error|Exception): ", "", reason).rstrip(".")
        raise UserError(f"The data set {name!r} can't be fetched: {reason}.")


def save(name: str, subset: str | None, folder: Path, only: str | None = None) -> None:
    """Load the set (a Hub id, or a local folder) and write a Parquet file for each split; class numbers get their names."""
    import datasets

    loaded = {"rows": datasets.load_dataset(name, subset, split=only)} if only else datasets.load_dataset(name, subset)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    for split, rows in loaded.items():
        for column, feature in rows.features.items():
            inner = getattr(feature, "feature", None)  # of lists: the tags of tokens, or several labels
            classes = feature if isinstance(feature, datasets.ClassLabel) else inner
            if isinstance(classes, datasets.ClassLabel):
                names = [_named(value, classes.names) for value in rows[column]]
                rows = rows.remove_columns(column).add_column(column, names)
        rows.to_parquet(str(part / f"{split}.parquet"))
    part.rename(folder)


def _named(value: Any, names: list[str]) -> Any:
    """The name of a class number, and those of a list; None where there is none."""
    if isinstance(value, list):
        return [_named(part, names) for part in value]
    return names[value] if value is not None and value >= 0 else None


if __name__ == "__main__":
    save(sys.argv[1], sys.argv[2] or None, Path(sys.argv[3]), sys.argv[4] or None)
