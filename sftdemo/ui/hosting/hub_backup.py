"""Runs and votes in a private data-set repository of the Hub, for a Space whose disk is empty after each restart."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import CommitScheduler, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.log import LOG
from sftdemo.verbs.backup import backup, restore

EVERY_MINUTES = 5
FILE = "backup.tar.gz"


class HomeBackup(CommitScheduler):  # type: ignore[misc]
    """Commits the home as one file whenever something in it has changed; only the newest is kept."""

    def __init__(self, repository: str, api: Any = None, every: float = EVERY_MINUTES) -> None:
        self.kept: tuple[int, float] | None = None
        folder = runs.home() / "tmp" / "backup"
        shutil.rmtree(folder, ignore_errors=True)
        super().__init__(
            repo_id=repository,
            repo_type="dataset",
            private=True,
            folder_path=folder,
            every=every,
            squash_history=True,
            hf_api=api or HfApi(),
        )

    def push_to_hub(self) -> Any:
        """Pack the home, and commit it; nothing where it is as it was."""
        state = changed(runs.home())
        if state[0] == 0 or state == self.kept:
            return None
        target = self.folder_path / FILE
        with self.lock:
            target.unlink(missing_ok=True)
            backup(target)
        commit = super().push_to_hub()
        self.kept = state
        LOG.info("Runs and votes are kept in %s.", self.repo_id)
        return commit

    def finish(self, seconds: float) -> None:
        """Commit what has changed, within so many seconds; what can't be is said."""
        try:
            self.trigger().result(timeout=seconds)
        except Exception as error:  # noqa: BLE001 (the app ends, whatever the Hub says)
            LOG.warning("The last changes were not kept in %s: %s", self.repo_id, error or type(error).__name__)
        self.stop()


def changed(home: Path) -> tuple[int, float]:
    """How many files of runs, votes and chats there are, and when the newest was written."""
    times = []
    for path in (*home.glob("votes.sqlite*"), *(home / "runs").rglob("*"), *(home / "chats").rglob("*")):
        with contextlib.suppress(OSError):  # a training takes away what it doesn't need
            if path.is_file():
                times.append(path.stat().st_mtime)
    return len(times), max(times, default=0.0)


def start(repository: str, api: Any = None) -> HomeBackup:
    """Bring back what the repository keeps, if this home is empty, and keep it from now on.

    Raises UserError where the Hub doesn't let us: it needs a token with the right to write, as the secret HF_TOKEN.
    """
    api = api or HfApi()
    try:
        if changed(runs.home()) == (0, 0.0):
            _bring_back(repository, api)
        return HomeBackup(repository, api)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "The repository {name!r} can't be used to keep runs and votes: {reason}. Give HF_TOKEN, a token that may write "
            "there.",
            name=repository,
            reason=" ".join(str(error).split())[:200],
        ) from error


def _bring_back(repository: str, api: Any) -> None:
    folder = runs.home() / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = Path(api.hf_hub_download(repository, FILE, repo_type="dataset", local_dir=folder / "restored"))
    except (EntryNotFoundError, RepositoryNotFoundError):
        return  # the first time
    manifest = restore(file)
    shutil.rmtree(folder / "restored", ignore_errors=True)
    LOG.info("Brought back from %s: %s runs, %s votes.", repository, manifest.get("runs"), manifest.get("votes"))
