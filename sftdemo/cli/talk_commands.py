"""`compare` and `chat`: what a base and its runs answer to what is typed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sftdemo import runs
from sftdemo.cli.commands import Result
from sftdemo.cli.flags import from_flags
from sftdemo.config import kinds
from sftdemo.config.generate import GenerateConfig
from sftdemo.log import LOG

if TYPE_CHECKING:
    from sftdemo.inference.side_by_side import SideBySide


def compare(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.compare import compare

    value = compare(options.runs, options.prompt, from_flags(options, GenerateConfig))
    if shown := value.get("shown"):
        text = "\n\n".join(f"{side}\n{own}" for side, own in shown.items())
    else:
        speeds = value["tokens_per_s"].items()
        text = "\n\n".join(f"{side} ({speed:.1f} tokens/s)\n{value[side]}" for side, speed in speeds)
    return Result(value, text)


def chat(options: argparse.Namespace) -> Result:
    from sftdemo.encoding.detokenizer import without_empty_thoughts
    from sftdemo.encoding.thoughts import message_of
    from sftdemo.inference import load_run

    config = from_flags(options, GenerateConfig)
    if len(options.runs) == 1 and runs.find(options.runs[0]).kind in kinds.LABELLING:
        return _label_lines(runs.find(options.runs[0]))
    pair = load_run.load(options.runs)
    LOG.info("All sides answer each line you write; an empty line ends the chat.")
    histories: dict[str, list[dict[str, str]]] = {side: [] for side in pair.names}
    while line := _ask():
        _say_control(pair, line)
        for history in histories.values():
            history.append({"role": "user", "content": line})
        texts = dict.fromkeys(pair.names, "")
        for chunk in pair.stream(histories, config):
            texts[chunk.side] += chunk.text
        for side, history in histories.items():
            history.append(message_of(texts[side].strip()))
            print(f"{side}: {without_empty_thoughts(texts[side]).strip()}\n")
    return Result(histories)


def _label_lines(run: runs.Run) -> Result:
    """Labels of each line that is typed with their probabilities, or its entities."""
    from sftdemo.inference import labelling

    LOG.info("Both sides label each line you write; an empty line ends it.")
    labelled = []
    while line := _ask():
        sides = labelling.label(run, line)
        labelled.append({"text": line, **{side: own.values for side, own in sides.items()}})
        for side, own in sides.items():
            print(f"{side}: {', '.join(own.shown.splitlines())}\n")
    return Result(labelled)


def _say_control(pair: SideBySide, text: str) -> None:
    from sftdemo.encoding.control_tokens import control_tokens

    if control_tokens(pair.tokenizer).stand_in(text):
        LOG.info("The text spells control tokens of the model; they are read as plain text.")


def _ask() -> str:
    try:
        return input("you: ").strip()
    except EOFError:
        return ""
