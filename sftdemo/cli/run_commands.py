"""`runs`: list, show and compare them, write notes on them, delete them and bring them back."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from sftdemo import files, runs
from sftdemo.cli.commands import Result
from sftdemo.errors import UsageError
from sftdemo.runs import trash

# What each action needs after it, as a user writes it.
ACTIONS = {
    "list": "",
    "show": "RUN …",
    "compare": "RUN RUN …",
    "rename": "RUN NAME",
    "note": "RUN TEXT",
    "tag": "RUN [TAG …]",
    "delete": "RUN …",
    "restore": "[RUN …]",
}


def manage_runs(options: argparse.Namespace) -> Result:
    if options.for_good and options.action != "delete":
        raise UsageError("--for-good belongs to runs delete.")
    if options.action in ("list", "restore"):
        return _list() if options.action == "list" else _restore(options.names)
    if not options.names:
        raise UsageError("runs {action} needs the name of a run.", action=options.action)
    if options.action in ("rename", "note", "tag"):
        return _annotate(options.action, *options.names)
    chosen_runs = [runs.find(name) for name in options.names]
    chosen_runs = list({files.real(run.path): run for run in chosen_runs}.values())
    if options.action == "delete":
        return _delete(chosen_runs, options.for_good)
    if options.action == "show":
        details = [runs.details(run) for run in chosen_runs]
        return Result(details[0] if len(details) == 1 else details, json.dumps(details, ensure_ascii=False, indent=1))
    if len(chosen_runs) < 2:
        raise UsageError("runs compare needs two runs or more.")
    from sftdemo.verbs.compare_runs import compare_runs

    value = compare_runs(chosen_runs)
    return Result(value, json.dumps(value, ensure_ascii=False, indent=1))


def _list() -> Result:
    listed = [runs.overview(run) for run in runs.list_runs()]
    lines = [
        f"{row['name']:<40} {row['state'] + (' ' + str(row['place']) if row['place'] else ''):<10} "
        + (row["error"] if row["state"] == "damaged" else f"{row['data'] or '':<24} {row['method'] or ''}")
        + (f"  {row['display_name']}" if row["display_name"] else "")
        + "".join(f"  #{tag}" for tag in row["tags"] or ())
        for row in listed
    ]
    return Result(listed, "\n".join(lines) or "No runs yet; `python -m sftdemo train --data …` makes one.")


def _annotate(action: str, name: str, *texts: str) -> Result:
    """`rename RUN NAME`, `note RUN TEXT` and `tag RUN TAG …`; an empty text, and no tag, take away what was there."""
    run = runs.find(name)
    if action != "tag" and len(texts) != 1:
        raise UsageError("It is: runs {action} {needs}, with quotes around what has blanks.", action=action, needs=ACTIONS[action])  # fmt: skip
    if action == "rename":
        notes = runs.rename(run, texts[0])
    else:
        notes = runs.annotate(run, tags=texts) if action == "tag" else runs.annotate(run, notes=texts[0])
    value: dict[str, Any] = {"run": run.name, "display_name": None, "notes": "", "tags": []} | notes
    called = f" is called {value['display_name']!r}" if value["display_name"] else " has its own name"
    tags = f" Tags: {', '.join(value['tags'])}." if value["tags"] else ""
    return Result(value, f"Run {run.name}{called}.{tags}" + (f"\n{value['notes']}" if value["notes"] else ""))


def _delete(chosen_runs: list[runs.Run], for_good: bool) -> Result:
    names, restorable = [run.name for run in chosen_runs], []
    for run in chosen_runs:
        if for_good or not trash.is_in_home(run):
            run.delete()
        else:
            restorable.append(trash.discard(run))
    value: dict[str, Any] = {"deleted": names, "restorable": [entry.to_json() for entry in restorable]}
    lines = [f"Deleted: {', '.join(names)}."]
    if restorable:
        size = sum(entry["bytes"] for entry in value["restorable"]) / 10**6
        lines.append(
            f"The trash keeps {'it' if len(restorable) == 1 else 'them'} ({size:,.1f} MB) until {_moment(restorable[0].until)}; "
            f"`runs restore {restorable[0].name}` brings it back."
        )
    return Result(value, " ".join(lines))


def _restore(names: list[str]) -> Result:
    """Bring runs back; without a name, list what can be."""
    if names:
        restored = [trash.restore(trash.find_deleted(name)).name for name in names]
        return Result({"restored": restored}, f"Restored: {', '.join(restored)}.")
    listed = [entry.to_json() for entry in trash.trashed()]
    lines = [f"{row['name']:<40} {row['bytes'] / 10**6:>10,.1f} MB  until {_moment(row['until'])}" for row in listed]
    return Result({"restorable": listed}, "\n".join(lines) or "The trash is empty.")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
