"""The command line: `python -m sftdemo COMMAND`. Each command loads only what it needs."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

if signal.getsignal(signal.SIGINT) is signal.default_int_handler and (
    __name__ == "__main__" or sys.argv[0].endswith("sftdemo")
):
    # Until `main` takes over: the imports below take a while, and some of them can't be interrupted cleanly.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"sftdemo: stopped.\n"), os._exit(130)))

import argparse
import json
from pathlib import Path

from sftdemo import __doc__ as about
from sftdemo import __version__, log
from sftdemo.cli import commands, model_commands, run_commands, sweep_command, talk_commands
from sftdemo.cli.flags import add_flags
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.export import ExportConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.config.push import PushConfig
from sftdemo.config.read import ReadConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.evaluation.words import LANGUAGES
from sftdemo.files import disk_fault
from sftdemo.system import distributed
from sftdemo.ui.access.settings import SECRET, AppConfig
from sftdemo.verbs.compress import TEACHERS


def parser(program: str = "python -m sftdemo") -> argparse.ArgumentParser:
    """All commands and their flags; settings come from the config dataclasses."""
    root = argparse.ArgumentParser(prog=program, description=about)
    root.add_argument("--version", action="version", version=f"sftdemo {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="One JSON object on stdout, everything else on stderr.")
    verbs = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, parents=[shared])
        added.set_defaults(act=getattr(commands, name, None))
        return added

    check = verb("check", "Read and validate data; exit status 1 if rows are at fault.")
    check.add_argument("data", metavar="DATA", help=ReadConfig.__dataclass_fields__["data"].metadata["help"])
    add_flags(check, ReadConfig, skip=("data",))
    encoding = ("model", "task", "thinking", "source_prefix", "source_language", "target_language")
    add_flags(check, TrainConfig, only=(*encoding, "max_length", "on_long", "chunk_overlap"))
    check.add_argument(
        "--row", type=int, metavar="K", help="Show the tokens of example K (from 1) as they are trained on."
    )

    train = verb("train", "Fine-tune; Ctrl-C stops and keeps what was learned.")
    source = train.add_mutually_exclusive_group()
    add_flags(source, TrainConfig, only=("data", "resume"))
    source.add_argument("--run", metavar="FOLDER", help=argparse.SUPPRESS)  # how the app starts a run it has made
    train.add_argument("--stop-after", type=float, metavar="MINUTES", help=argparse.SUPPRESS)  # of a run of the app
    add_flags(train, TrainConfig, skip=("data", "resume"))
    train.add_argument(
        "--save-config", type=Path, metavar="FILE", help="Write the settings to this YAML file, and train nothing."
    )

    sweep = verb("sweep", "Try learning rates, ranks and epochs for some minutes, and train the best to its end.")
    sweep.set_defaults(act=sweep_command.sweep)
    sweep.add_argument("data", metavar="DATA", help=ReadConfig.__dataclass_fields__["data"].metadata["help"])
    add_flags(sweep, SweepConfig)
    add_flags(sweep, TrainConfig, skip=sweep_command.LEFT_OUT)
    for verb_that_trains in (train, sweep):
        verb_that_trains.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="Settings from YAML or JSON, also a run's config.json; flags stand above the file.",
        )
        verb_that_trains.add_argument(
            "--no-wait",
            action="store_true",
            help="While another run trains, end with exit status 1 instead of waiting.",
        )

    compress = verb("compress", "Train a smaller student of a run, on the run's own rows and by its probabilities.")
    compress.add_argument("run", metavar="RUN")
    add_flags(compress, TrainConfig, skip=TEACHERS)
    compress.add_argument(
        "--no-wait", action="store_true", help="While another run trains, end with exit status 1 instead of waiting."
    )

    evaluate = verb("evaluate", "Measure base and tuned on the same held-out rows.")
    evaluate.add_argument("run", metavar="RUN")
    add_flags(evaluate, EvaluateConfig)
    evaluate.add_argument(
        "--rescore", metavar="NAME", help="Score the saved outputs of this evaluation again; no model is loaded."
    )

    compare = verb("compare", "Answer one prompt with a base and up to three runs of it, in one batch.")
    compare.add_argument("runs", nargs="+", metavar="RUN")
    compare.set_defaults(act=talk_commands.compare)
    compare.add_argument("--prompt", required=True, metavar="TEXT")
    add_flags(compare, GenerateConfig)

    score = verb("score", "Score rows of predictions and references without a model.")
    score.add_argument("file", metavar="FILE", help="JSONL, CSV or any other file that data is read from.")
    add_flags(score, ReadConfig, only=("encoding", "header", "sheet"))
    score.add_argument("--language", choices=LANGUAGES, default="auto")
    score.add_argument(
        "--tokenizer", help="BLEU's tokenizer; default: 13a, zh for Chinese, char for Thai, Lao, Khmer and Burmese."
    )

    chat = verb("chat", "Talk to a base and up to three runs of it, side by side in the terminal.")
    chat.set_defaults(act=talk_commands.chat)
    chat.add_argument("runs", nargs="+", metavar="RUN")
    add_flags(chat, GenerateConfig)

    listed = verb("runs", "List, show and compare runs, name, note and tag them, delete and restore them.")
    listed.set_defaults(act=run_commands.manage_runs)
    usage = "; ".join(f"{action} {needs}".strip() for action, needs in run_commands.ACTIONS.items())
    listed.add_argument("action", nargs="?", choices=tuple(run_commands.ACTIONS), default="list", help=f"{usage}.")
    listed.add_argument("names", nargs="*", metavar="RUN")
    listed.add_argument("--for-good", action="store_true", help="Delete without keeping it in the trash for a week.")

    votes = verb("votes", "The totals of the blind votes on a run, or the votes themselves.")
    votes.add_argument("run", metavar="RUN")
    votes.add_argument("--export", choices=("csv", "jsonl", "dpo"))
    votes.add_argument("--exclude", metavar="RATER", help="Leave this rater's votes on the run out of everything.")
    votes.add_argument("--include", metavar="RATER", help="Take them in again.")
    votes.add_argument(
        "--open", metavar="EVALUATION", help="Ask raters about this evaluation, whatever newer ones come."
    )
    votes.add_argument(
        "--between",
        metavar="FIRST,SECOND",
        help="Ask raters about these two systems, as linear,tuned or run:OTHER,tuned, and tell the votes on them; base,tuned as at first.",
    )

    export = verb("export", "Write a run's model to a folder of its own, and see that it answers as the run does.")
    export.set_defaults(act=model_commands.export)
    export.add_argument("run", metavar="RUN")
    export.add_argument("--to", required=True, metavar="DIR", help="A new folder; with --zip a new file.")
    export.add_argument("--merge", action="store_true", help="The same as --format merged.")
    add_flags(export, ExportConfig)

    push = verb(
        "push", "Put a run's model on the Hub with its card, private; the token is HF_TOKEN or of `hf auth login`."
    )
    push.set_defaults(act=model_commands.push)
    push.add_argument("run", metavar="RUN")
    push.add_argument("repository", metavar="OWNER/NAME")
    add_flags(push, PushConfig)

    imported = verb("import", "Make a run of a run's folder, an export, a LoRA adapter or a Hub id from elsewhere.")
    imported.set_defaults(act=model_commands.import_run)
    imported.add_argument("source", metavar="SOURCE", help="A folder, the ZIP of an export, or a Hub id (owner/name).")
    imported.add_argument("--name", help="The run's name here.")
    imported.add_argument(
        "--base", metavar="MODEL", help="The model that it was tuned from: a folder, a Hub id, or smollm2-135m."
    )

    report = verb("report", "Write a run, or several compared, as one HTML file that needs no network.")
    report.add_argument("runs", nargs="+", metavar="RUN")
    report.add_argument("--to", required=True, metavar="FILE", help="The file; its name ends in .html.")
    report.add_argument("--language", choices=("en", "zh"), default="en")

    app = verb("app", "Serve the web app.")
    add_flags(app, AppConfig, skip=SECRET)

    backup = verb("backup", "Write this home's runs and votes to one file, also while the app is serving.")
    backup.add_argument("file", metavar="FILE", help="A new file; by custom its name ends in .tar.gz.")
    backup.add_argument("--models", action="store_true", help="The models that runs were tuned from, too.")

    restore = verb("restore", "Put the runs and votes of a backup into this home, which must have none.")
    restore.add_argument("file", metavar="FILE")

    verb("mcp", "Serve runs, scores and comparisons to an MCP client on standard input and output; changes nothing.")

    verb("demo", "The whole main job on sample data: train, evaluate, print the table.")
    return root


class _Terminated(KeyboardInterrupt):
    """By SIGTERM: what was half-written goes, as at Ctrl-C, and then the process ends as its sender expects."""


def _terminate(number: int, frame: Any) -> None:
    raise _Terminated


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 data or run at fault, 2 wrong usage, 130 stopped)."""
    options = parser("sftdemo" if Path(sys.argv[0]).stem == "sftdemo" else "python -m sftdemo").parse_args(arguments)
    log.show()
    # To import bitsandbytes loads torch's compiler, seconds and 40 MB, for functions that its kernels here replace.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # Whatever a library prints must not get between a machine and its JSON.
    output, sys.stdout = sys.stdout, sys.stderr if options.json else sys.stdout
    try:
        if arguments is None:
            for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _terminate)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, handler)
        result: commands.Result = options.act(options)
    except UserError as error:
        print(f"sftdemo: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if (fault := disk_fault(error)) is None:
            raise
        print(f"sftdemo: {fault}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt as interruption:
        if distributed.is_rank_zero():
            print("sftdemo: stopped.", file=sys.stderr, flush=True)
        if isinstance(interruption, _Terminated):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        eval("0")  # else, after an interruption amid an `exec`, Python would end by SIGINT and not with this status
        return 130
    finally:
        sys.stdout = output
    if not distributed.is_rank_zero():
        return result.exit_code
    text = json.dumps(result.value, ensure_ascii=False, default=_plain) if options.json else result.text
    if text:
        _print(text)
    return result.exit_code


def _print(text: str) -> None:
    """Print it, and end quietly where the reader has had enough (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain of the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


if __name__ == "__main__":
    sys.exit(main())
