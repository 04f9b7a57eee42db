"""Which data and models may be named over the network: samples and uploads by everybody, the server's own by its owner."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sftdemo import runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.read import ReadConfig
from sftdemo.config.settings import Settings
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import TrainConfig
from sftdemo.data.sources import sample_names
from sftdemo.errors import UserError
from sftdemo.ui import downloads
from sftdemo.ui.access import rights, uploads

_WEIGHT = re.compile(r"\s*\*\s*[\d.]+$")


def check(config: Settings, visitor: rights.Visitor) -> None:
    """Raise UserError if the settings name data or a model that this visitor may not use."""
    if visitor == rights.LOCAL or (visitor.owner and rights.policy().at_home):
        return
    data = config.data if isinstance(config, ReadConfig | EvaluateConfig) else None
    for source in parts(data or ""):
        if source not in sample_names() and not uploads.is_own(source, visitor):
            check_named(source, visitor)
    edits = config.edits if isinstance(config, ReadConfig) else None
    if edits and not uploads.is_own(edits, visitor):
        check_named(edits, visitor)
    if isinstance(config, TrainConfig) and config.report_to and not visitor.owner:
        raise UserError("Where the curves go is the owner's choice; leave out report_to.")
    if isinstance(config, TrainConfig) and config.teacher:
        if not visitor.owner:
            raise UserError("Which run is learned from is the owner's choice; leave out teacher.")
        runs.named(config.teacher)  # no path
    if isinstance(config, TrainConfig) and config.from_run:
        if not visitor.owner:
            raise UserError("Only the owner goes on from an earlier run; leave from_run out.")
        runs.named(config.from_run)  # no path
    if isinstance(config, TrainConfig) and config.model != DEFAULT_MODEL:
        check_named(config.model, visitor)


def parts(data: str) -> list[str]:
    """The sources in a mixture, without their weights; nothing is looked up on the disk."""
    if is_upload(data):
        return [data]
    return [_WEIGHT.sub("", part.strip()) for part in re.split(r"(?:^|(?<=\s))\+(?=\s|$)", data) if part.strip()]


def is_upload(source: str) -> bool:
    """Whether it is a file that was uploaded to this app."""
    folder = os.environ.get("GRADIO_TEMP_DIR", "")
    return bool(folder) and inside(source, Path(folder)) and not inside(source, downloads.folder())


def inside(source: str, folder: Path) -> bool:
    """Whether a path, symbolic links followed, leads into the folder."""
    try:
        path = Path(source).expanduser()
        return path.is_absolute() and path.resolve().is_relative_to(folder.expanduser().resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a loop, an unknown user's home
        return False


def check_named(source: str, visitor: rights.Visitor) -> None:
    """Raise UserError unless the owner names a Hub id, or a path in one of the allowed folders."""
    if not visitor.owner:
        raise UserError(
            "{source!r} can't be chosen here: paths and Hub ids are the owner's; take a sample, or upload a file.",
            source=source[:80],
        )
    if not _exists(source):
        return
    folders = rights.policy().config.listed("allowed_folders", os.pathsep)
    if not any(inside(os.path.abspath(os.path.expanduser(source)), Path(folder)) for folder in folders):
        raise UserError(
            "{source!r} is outside the folders that may be read over the network; start the app with --allowed-folders.",
            source=source[:80],
        )


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
