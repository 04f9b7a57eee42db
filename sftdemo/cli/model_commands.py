"""`export`, `push` and `import`: a run's model into a folder, onto the Hub, and a model from elsewhere as a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from sftdemo import runs
from sftdemo.cli.commands import Result
from sftdemo.cli.flags import from_flags
from sftdemo.cli.progress_bar import Bar
from sftdemo.config.export import ExportConfig
from sftdemo.config.push import PushConfig
from sftdemo.errors import UsageError


def export(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.export import export

    config = from_flags(options, ExportConfig)
    if options.merge and config.format not in ("auto", "merged"):
        raise UsageError("--merge and --format {format} contradict each other; give one.", format=config.format)
    exported = export(options.run, Path(options.to), options.merge, config=config)
    value = {"run": options.run, "to": str(exported.path), "merged": exported.format == "merged", **exported.to_json()}
    return Result(value, "\n".join([f"Exported to {exported.path}.", *([exported.sentence] if exported.check else [])]))


def push(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.push import push

    pushed = push(runs.find(options.run), options.repository, from_flags(options, PushConfig))
    data = f"\nIts data set: {pushed.data_url}" if pushed.data_url else ""
    return Result({"run": options.run, **pushed.to_json()}, f"{pushed.check}\n{pushed.sentence}{data}")


def import_run(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.importing import import_run

    run = import_run(options.source, options.name, options.base, Bar())
    config = run.config()
    value = {"run": run.name, "model": config["settings"]["model"], **config["imported"]}
    text = f"Run {run.name} is here ({value['kind']}). Talk to it, or measure it: evaluate {run.name} --data DATA"
    return Result(value, text)
