"""Data sets of the Hugging Face Hub, fetched by the library `datasets` in a process of its own and kept as Parquet."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sftdemo.data.files.class_names import named
from sftdemo.errors import UserError
from sftdemo.runs import home
from sftdemo.system import hub

PATIENCE = 8.0
MOST_BYTES = 5 * 10**9
COPIES = 12  # of a packed file: as it came, as Arrow and as Parquet
_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?::([\w.-]*)(?::([\w.-]+))?)?")


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
        size = _ask(name, narrowed=bool(subset or split))
        _download(name, subset, folder, split, size)
    return folder


def _ask(name: str, narrowed: bool) -> int:
    """How many bytes the Hub says that the set's files have; UserError where it doesn't answer or they are too many."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    unreachable = UserError(
        "There is no file or sample {name!r}, and the Hugging Face Hub doesn't answer; "
        "check the path or the network, or download the data set's file yourself and give its path.",
        name=name,
    )
    if hub.is_offline():
        raise unreachable
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=hub.token())
    try:
        info = hub.within(PATIENCE, lambda: api.dataset_info(name, files_metadata=True, timeout=PATIENCE))
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError("The data set {name!r} can't be fetched: {reason}", name=name, reason=reason) from error
    except Exception as error:
        raise unreachable from error
    total = sum(max(file.size or 0, 0) for file in info.siblings or [])
    if total <= MOST_BYTES:
        return total
    if not narrowed:
        raise UserError(
            "The data set {name!r} has {count} GB, more than the {most} GB that may be downloaded; name a subset or split of "
            "it (owner/name:subset:split).",
            name=name,
            count=total // 10**9,
            most=MOST_BYTES // 10**9,
        )
    return MOST_BYTES


def _download(name: str, subset: str | None, folder: Path, split: str | None, size: int) -> None:
    """The library keeps its caches where the environment says at import, hence the child process.

    Files of `size` bytes are kept as they came, as Arrow and as Parquet, which may be larger where they were packed.
    """
    arguments = [name, subset or "", str(folder.resolve()), split or ""]
    expected = min(COPIES * size, 3 * MOST_BYTES)
    try:
        hub.download("sftdemo.data.hub", arguments, [home() / "hub"], expected, hub.caches())
    except UserError as error:
        raise UserError("The data set {name!r} can't be fetched: {reason}.", name=name, reason=error.text) from error


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
                names = [named(value, classes.names) for value in rows[column]]
                rows = rows.remove_columns(column).add_column(column, names)
        rows.to_parquet(str(part / f"{split}.parquet"))
    part.rename(folder)


if __name__ == "__main__":
    save(sys.argv[1], sys.argv[2] or None, Path(sys.argv[3]), sys.argv[4] or None)
