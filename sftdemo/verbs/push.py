"""A run's model, its card and what is said of its data, onto the Hub: saved here first, so that a failed push can be repeated."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from sftdemo import files, runs
from sftdemo.config.export import ExportConfig
from sftdemo.config.push import FORMATS, PushConfig
from sftdemo.errors import Text, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.schema.owner import Push
from sftdemo.system import hub, hub_upload
from sftdemo.training.data_card import data_card, write_data
from sftdemo.training.model_card import Terms, write_card
from sftdemo.verbs.export import export

DATA_CARD = "DATA_CARD.md"


@dataclass(frozen=True)
class Pushed:
    """Where the model lies on the Hub, and its data set if that was asked for; `check` says how its answers compare."""

    url: str
    private: bool
    format: str
    check: str
    data_url: str | None = None

    @property
    def sentence(self) -> Text:
        seen = Text("private") if self.private else Text("public")
        return Text("The model is at {url} ({seen}).", url=self.url, seen=seen)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Saved:
    """An export that waits for its push, in a folder of the home; `exported.json` beside it says of which model."""

    run: runs.Run
    what: str
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", runs.home() / "pushes" / f"{self.run.name}-{self.what}")

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def facts(self) -> dict[str, Any] | None:
        """Format and check of the export, if it is of the model as the run has it now."""
        path = self.folder / "exported.json"
        facts = files.read_json(path) if path.is_file() and self.model.is_dir() else {}
        return facts if facts.get("of") == self._stamps() else None

    def make(self, reporter: Reporter) -> dict[str, Any]:
        """Export anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        exported = export(
            self.run,
            self.model,
            reporter=reporter,
            config=ExportConfig(format=FORMATS.get(self.what, self.what)),
        )
        facts = {"format": exported.format, "check": exported.sentence, "of": self._stamps()}
        files.write_json(self.folder / "exported.json", facts)
        return facts

    def _stamps(self) -> list[list[Any]]:
        paths = sorted(path for path in self.run.model_path.rglob("*") if path.is_file())
        return [[path.name, *files.stamp(path.stat())] for path in paths]


def push(
    run: runs.Run | str,
    repository: str,
    config: PushConfig | None = None,
    reporter: Reporter = TO_LOG,
    while_exporting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Pushed:
    """Export a run's model, and make the repository OWNER/NAME on the Hub hold it, private unless asked otherwise.

    The token is the owner's own, from the environment or `hf auth login`. The export is saved in the home's `pushes/` first
    and removed once the Hub has it; until then the same push sends it again. `while_exporting` is entered for the export alone,
    which needs memory, and not for the upload. Raises UserError with one line for each way in
    which the Hub doesn't take it, and before anything is exported for a name that can't be one. Where it is stopped it says
    what is on the Hub then: as UserError where the reporter says stop, else to the reporter before KeyboardInterrupt goes on.
    """
    run = runs.find(run) if isinstance(run, str) else run
    config = (config or PushConfig()).check()
    if hub.token() is False:
        raise UserError("Only the owner of this app may push; the Hub's token is the owner's.")
    data_repository = f"{repository}-data" if config.with_data else ""
    for name in (repository, data_repository) if data_repository else (repository,):
        _check_name(name)
    if config.with_data and not run.examples("train"):
        raise UserError("Run {name} keeps no rows to push; leave out --with-data.", name=run.name)
    saved = Saved(run, config.what)
    try:
        facts = _exported(saved, reporter, while_exporting)
    except KeyboardInterrupt as stopped:
        _end(stopped, Text("Stopped; nothing was sent to the Hub."), reporter)
    terms = Terms(repository, data_repository, config.license, config.data_license)
    write_card(run, saved.model, facts["format"], facts["check"], terms)
    files.write_text(saved.model / DATA_CARD, data_card(run, terms, with_rows=False))
    parts = {repository: (saved.model, facts["format"])}
    if data_repository:
        write_data(run, saved.folder / "data", terms)
        parts = {f"datasets/{data_repository}": (saved.folder / "data", "data"), **parts}
    sent: dict[str, dict[str, Any]] = {}
    try:
        for name, (folder, form) in parts.items():
            sent[name] = _send(run, folder, name, form, config, reporter)
    except UserError as error:
        raise UserError(_kept(error.text, saved)) from error
    except KeyboardInterrupt as stopped:
        _end(stopped, _kept(_left(list(parts), sent, stopped), saved), reporter)
    shutil.rmtree(saved.folder, ignore_errors=True)
    model, data = sent[repository], sent.get(f"datasets/{data_repository}")
    if config.public and model["private"]:
        reporter.info(Text("The repository was private and stays so; the Hub's settings of it change that."))
    return Pushed(model["url"], model["private"], facts["format"], facts["check"], data["url"] if data else None)


def _exported(
    saved: Saved, reporter: Reporter, while_exporting: Callable[[], AbstractContextManager[None]]
) -> dict[str, Any]:
    """Format and check of the export, which is made where none is saved."""
    if facts := saved.facts():
        reporter.info(Text("Taking the export that was saved before."))
    else:
        with while_exporting():
            facts = saved.make(reporter)
    reporter.raise_if_stopped()
    return facts


def _kept(fault: Text, saved: Saved) -> Text:
    return Text(
        "{fault} The export is kept in {folder}; the same push sends it again.", fault=fault, folder=saved.folder
    )


def _left(names: list[str], sent: Collection[str], stopped: KeyboardInterrupt) -> Text:
    """What is on the Hub after a stop: what was sent, what the next one holds, and what of the others was there before."""
    before = dict.fromkeys(names[len(sent) :], "")
    if isinstance(stopped, hub_upload.Stopped):
        before[names[len(sent)]] = stopped.before
    whole = [Text("{repository} has all that was sent", repository=name) for name in names[: len(sent)]]
    return Text("Stopped. On the Hub now: {states}.", states=[*whole, *hub_upload.states(before)])


def _end(stopped: KeyboardInterrupt, text: Text, reporter: Reporter) -> NoReturn:
    """Say what a stop leaves."""
    if reporter.should_stop():
        raise UserError(text) from stopped
    reporter.info(text)
    raise stopped


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise HFValidationError("it has no owner")
    except HFValidationError as error:
        raise UserError(
            "{name!r} can't be a repository's name; write OWNER/NAME with letters, digits, '-', '_' and '.', 96 at most.",
            name=str(repository)[:120],
        ) from error


def _send(
    run: runs.Run, folder: Path, repository: str, form: str, config: PushConfig, reporter: Reporter
) -> dict[str, Any]:
    """Upload, and keep in the run's pushes.json which repositories are its own."""
    size = files.tree_bytes(folder) / 10**6
    reporter.info(Text("Sending {size:,.1f} MB to {repository} …", size=size, repository=repository))
    known = run.pushes().get("repositories", {})

    def note(entry: Push) -> None:
        with run.unless_deleted():
            repositories = {**run.pushes().get("repositories", {}), repository: entry}
            files.write_json(run.path / "pushes.json", {"repositories": repositories}, parents=False)

    def entry(url: str, commit: str, private: bool) -> Push:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {"url": url, "commit": commit, "private": private, "format": form, "at": at}

    def created() -> None:
        if repository not in known:
            note(entry("", "", not config.public))

    kind, name = ("dataset", repository.removeprefix("datasets/")) if form == "data" else ("model", repository)
    sent = hub_upload.upload(folder, name, kind, config.public, repository in known, created, reporter.should_stop)
    note(entry(sent["url"], sent["commit"], sent["private"]))
    return sent
