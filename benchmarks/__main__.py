"""The command: measure all parts or one, and write report, plot and raw figures."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks import parts, peers, plan, plot, report
from sftdemo import files, log, runs
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.errors import UserError
from sftdemo.model import download

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "peft", "gradio")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser("python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    found.add_argument("--only", choices=tuple(parts.PARTS), help="Measure one part.")
    found.add_argument("--quick", action="store_true", help="Few rows, one round: shows that all works.")
    found.add_argument("--rounds", type=int, metavar="N", help="Default: 3; with --quick 1.")
    found.add_argument("--rows", default="mixed", metavar="DATA", help="Trained on: mixed (default), a sample, a file.")
    found.add_argument(
        "--prompts", default="support_tickets", metavar="DATA", help="Answered; default: support_tickets."
    )
    found.add_argument("--model", default=DEFAULT_MODEL, metavar="MODEL", help=f"Default: {DEFAULT_MODEL}.")
    found.add_argument("--peers", type=Path, metavar="DIR", help="The peers' environments; default: in SFTDEMO_HOME.")
    found.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="Where the report goes.")
    return found


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.M)
    return name[1].strip() if name else platform.processor() or platform.machine()


def versions(environments: Path) -> str:
    own = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    theirs = [
        f"{peer}'s environment: " + ", ".join(f"{name} {version}" for name, version in found.items())
        for peer in peers.PACKAGES
        if (found := peers.versions(environments, peer))
    ]
    return "; ".join([own, *theirs])


def say(record: plan.Record) -> None:
    values = {key: value for key, value in record.items() if key not in ("part", "who", "round")}
    print(
        f"{record['part']} · round {record['round']} · {record['who']}: {json.dumps(values)}",
        file=sys.stderr,
        flush=True,
    )


def measured(part: str, bench: plan.Bench) -> Iterator[plan.Record]:
    """A part's records; its own fault is one of them, and the other parts go on."""
    try:
        yield from parts.PARTS[part](bench)
    except UserError as error:
        yield {"part": part, "who": "this part", "round": 0, "failed": str(error)}


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    size = plan.QUICK if options.quick else plan.Size()
    if options.rounds is not None:
        if options.rounds < 1:
            parser().error(f"--rounds is {options.rounds}; the least is 1.")
        size = dataclasses.replace(size, rounds=options.rounds)
    environments = (options.peers or runs.home() / "peers").resolve()
    began = time.time()
    log.show()
    try:
        model, _ = download.find(options.model)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    runs.home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs.home().resolve(), prefix="benchmark-") as work:
        bench = plan.Bench(size, model.resolve(), Path(work), environments, options.rows, options.prompts)
        for part in [options.only] if options.only else list(parts.PARTS):
            for record in measured(part, bench):
                bench.records.append(record)
                say(record)
    from sftdemo.system import compute  # brings torch, which a wrong flag need not wait for

    about = {
        "machine": f"{processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "arithmetic": compute.training_precision("auto")[1],
        "versions": versions(environments),
        "command": shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if words is None else words)]),
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(began)),
        "took": f"{(time.time() - began) / 60:.0f} minutes, {size.rounds} rounds",
        "model": f"{options.model}; trained on {size.training_rows} rows of {options.rows}; prompts of {options.prompts}",
    }
    print(write(options.results, about, size, bench.records))
    return 0


def write(folder: Path, about: dict[str, Any], size: plan.Size, records: list[plan.Record]) -> Path:
    """Save <date>-<processor>.md, .svg and .json; returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    path = folder / f"{about['date'].replace(' ', '-').replace(':', '')}-{slug}.md"
    raw = {"about": about, "size": dataclasses.asdict(size), "records": records}
    files.write_json(path.with_suffix(".json"), raw)
    files.write_text(path.with_suffix(".svg"), plot.svg(plot.panels(report.Found(records))))
    files.write_text(path, report.markdown(records, about, path.with_suffix(".svg").name))
    return path


if __name__ == "__main__":
    sys.exit(main())
