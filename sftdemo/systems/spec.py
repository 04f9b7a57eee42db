"""What `--against` asks for: names of systems, as linear,base+8,run:other,file:predictions.jsonl."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sftdemo import runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.systems.endpoint import Endpoint
from sftdemo.systems.few_shot import FewShot
from sftdemo.systems.linear import Linear
from sftdemo.systems.other_run import OtherRun
from sftdemo.systems.quantized import NAMES, Quantized
from sftdemo.systems.simple import Copy, Majority, PredictionFile
from sftdemo.systems.system import System

MOST_SHOWN = 64  # examples before a question
SIMPLE: dict[str, Callable[[], System]] = {"majority": Majority, "copy": Copy, "linear": Linear}
FORMS = (*SIMPLE, *NAMES, "base+8", "base+8:nearest", "run:NAME", "file:PATH", "api:MODEL@URL")


def parse(against: str | None, run: runs.Run) -> list[System]:
    """The systems that a list names, to be compared with a run; one that is named twice counts once.

    Raises UsageError or UserError for what is no system, a run or a file that isn't there, or the run itself.
    """
    try:
        parts = [part.strip() for part in next(csv.reader([against or ""], skipinitialspace=True), [])]
    except csv.Error as error:
        raise UsageError("against is {value!r}; write the systems in one line, with commas.", value=against) from error
    systems = [_system(part, run) for part in parts if part]
    return list({system.name: system for system in systems}.values())


def check_asked(config: EvaluateConfig, systems: list[System]) -> None:
    """Raise UsageError where `to` is none of the systems compared, or there is nothing to ask again or to price."""
    known = ["base", "tuned", *(system.name for system in systems)]
    if config.to is not None and config.to not in known:
        raise UsageError("to is {name!r}; choose one of the systems compared: {known}.", name=config.to, known=known)
    prices(config)
    if (config.again or config.to or config.prices) and not systems:
        raise UsageError("to, again and prices are about other systems; name some by --against.")


def prices(config: EvaluateConfig) -> tuple[float, float] | None:
    """What a prompt token and a token of an answer cost."""
    if config.prices is None:
        return None
    try:
        prompt, completion = (float(part) / 1e6 for part in config.prices.split(","))
    except ValueError:
        prompt = completion = -1.0
    if not (0 <= prompt < math.inf and 0 <= completion < math.inf):
        raise UsageError(
            "prices is {value!r}; give what a million prompt and a million answer tokens cost, as 0.15,0.60.",
            value=config.prices,
        )
    return prompt, completion


def _system(name: str, run: runs.Run) -> System:
    kind, colon, rest = name.partition(":")
    if name in SIMPLE:
        return SIMPLE[name]()
    if name in NAMES:
        return Quantized(name, run)
    if shots := re.fullmatch(r"base\+(\d{1,4})(:nearest)?", name):
        count = int(shots[1])
        if not 1 <= count <= MOST_SHOWN:
            raise UsageError("{name} shows {n} examples; ask for 1 to {most}.", name=name, n=count, most=MOST_SHOWN)
        return FewShot(count, bool(shots[2]))
    if kind == "run" and rest:
        other = runs.find(rest)
        if other.path == run.path:
            raise UsageError("Run {name} can't be compared with itself; name another run.", name=run.name)
        return OtherRun(other)
    if kind == "file" and rest:
        path = Path(rest).expanduser()
        if not path.is_file():
            raise UserError("There is no file {path}; give one with predictions, as `score` reads it.", path=path)
        return PredictionFile(path, name)
    if kind == "api" and colon:
        return _endpoint(name, rest)
    raise UsageError("{name!r} is no system to compare with; there are: {forms}.", name=name, forms=list(FORMS))


def _endpoint(name: str, rest: str) -> Endpoint:
    written = re.fullmatch(r"(.+?)@(https?://\S+)", rest)
    model, url = written.groups() if written else ("", "")
    try:
        parts = urlsplit(url)
        known = bool(parts.hostname) and parts.port != 0  # raises for what is no port
    except ValueError:
        known = False
    if not known:
        raise UsageError("{name!r} names no endpoint; write it as api:MODEL@http://127.0.0.1:8000/v1.", name=name)
    if parts.username or parts.password:
        raise UsageError(
            "The address of {model} has a password in it; give the key by SFTDEMO_ENDPOINT_KEY.", model=model
        )
    if parts.query or parts.fragment:  # which often is a key, and the address is kept and shown
        raise UsageError(
            "The address of {model} has something behind a ? or #; leave it out, and give a key by SFTDEMO_ENDPOINT_KEY.",
            model=model,
        )
    return Endpoint(model, url)
