"""Writes the parts of the documents that the code knows: `python docs/write.py`; `--check` only says what is out of date."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import sftdemo  # noqa: E402
from sftdemo import data  # noqa: E402
from sftdemo.__main__ import parser  # noqa: E402
from sftdemo.config.settings import value_type  # noqa: E402
from sftdemo.evaluation.registry import METRICS  # noqa: E402
from sftdemo.log import TO_LOG  # noqa: E402
from sftdemo.runs import samples, sweep_record  # noqa: E402
from sftdemo.schema import evaluation, lineage, owner, run  # noqa: E402

_LAYERS = ast.parse((DOCS.parent / "tests" / "test_layers.py").read_text(encoding="utf-8"))
ORDER, INSIDE = (
    next(
        ast.literal_eval(node.value)
        for node in _LAYERS.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    )
    for name in ("ORDER", "INSIDE")
)
STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
NOTE = "<!-- Written by docs/write.py; edit the code instead. -->\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# commands.md


def commands() -> str:
    """Every command with its flags."""
    root = parser("sftdemo")
    verbs = next(action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    parts = [NOTE, "# Commands\n\n", "`sftdemo COMMAND`, or from a checkout `python -m sftdemo COMMAND`. "]
    parts.append("Exit status: 0 done, 1 the data or the run is at fault, 2 wrong usage, 130 stopped by the user.\n")
    for name, verb in verbs.choices.items():
        shown = [action for action in verb._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
        places = [_usage(action) for action in shown if not action.option_strings]
        parts.append(f"\n## {name}\n\n`{' '.join(['sftdemo', name, *places])}`\n\n{verb.description}\n\n")
        parts.append(table(("", ""), ((f"`{_usage(action)}`", _help(action)) for action in shown)))
    return "".join(parts)


def _usage(action: argparse.Action) -> str:
    value = "|".join(action.choices) if action.choices else action.metavar or action.dest.upper()
    assert isinstance(value, str)
    if not action.option_strings:
        return {"*": f"[{value} …]", "+": f"{value} [{value} …]", "?": f"[{value}]"}.get(str(action.nargs), value)
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%") + (" Required." if action.required and action.option_strings else "")


# python.md


def python() -> str:
    """Everything that `import sftdemo` gives."""
    parts = [
        NOTE,
        "# From Python\n\nAll of it is loaded at first use: `import sftdemo` itself loads neither torch nor Gradio.\n",
    ]
    named = {name: getattr(sftdemo, name) for name in sftdemo.__all__}
    for name, value in sorted(named.items(), key=lambda item: inspect.isclass(item[1])):
        if inspect.isclass(value):
            parts.append(f"\n## {name}\n\n{_doc(value)}\n")
            parts.append(f"\n{_settings(value)}" if dataclasses.is_dataclass(value) else _methods(value))
            continue
        parts.append(_function(f"## {name}", name, value))
        if name == "load":
            pair = _pair()
            parts.append(f"\n### What it returns\n\n{_doc(pair)}\n")
            parts.append(_methods(pair, ("stream", "complete")))
    return "".join(parts)


def _methods(kind: type[Any], names: Iterable[str] = ()) -> str:
    """Methods of a class, by default all that are its own and public."""
    names = names or [name for name in vars(kind) if not name.startswith("_")]
    return "".join(_function(f"### {name}", name, getattr(kind, name)) for name in names)


def _pair() -> Any:
    """The class that `load` returns, by its annotation."""
    source, name = (
        inspect.getsource(sys.modules[sftdemo.load.__module__]),
        inspect.signature(sftdemo.load).return_annotation,
    )
    home = re.search(rf"^ *from (\S+) import .*\b{name}\b", source, re.M)
    assert home, name
    return getattr(importlib.import_module(home[1]), name)


def _function(heading: str, name: str, function: Any) -> str:
    lines = []
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.name != "self":
            given = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
            lines.append(f"    {STARS.get(parameter.kind.name, '')}{parameter.name}: {parameter.annotation}{given},\n")
    code = f"{name}(\n{''.join(lines)}) -> {signature.return_annotation}"
    return f"\n{heading}\n\n```python\n{code}\n```\n\n{_doc(function)}\n"


def _default(value: Any) -> str:
    if value is TO_LOG:
        return "Reporter()"
    if not inspect.isfunction(value):
        return repr(value)
    return "…" if value.__name__ == "<lambda>" else value.__name__


def _doc(value: Any) -> str:
    text = inspect.getdoc(value)
    assert text, value
    return text


def _settings(config: type[Any]) -> str:
    rows = []
    for spec in dataclasses.fields(config):  # type: ignore[arg-type]
        kind, optional = value_type(spec, config)
        low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
        bounds = ", ".join(f"{word} {value:g}" for word, value in (("from", low), ("to", high)) if value is not None)
        allowed = ", ".join(f"`{choice}`" for choice in choices) if choices else bounds
        shown = f"{kind.__name__}, or None" if optional else kind.__name__
        rows.append((f"`{spec.name}`", shown, f"`{spec.default!r}`", allowed, spec.metadata["help"]))
    return table(("setting", "type", "default", "allowed", "what it is"), rows)


# run-folder.md


def run_folder(text: str) -> str:
    """The document with its tables of keys written anew."""
    mark = re.compile(r"(<!-- keys of (\w+)(?: beside (\w+))? -->\n).*?(<!-- end -->)", re.S)
    return mark.sub(lambda match: f"{match[1]}{keys(kind(match[2]), match[3] and kind(match[3]))}{match[4]}", text)


def kind(name: str) -> Any:
    """The TypedDict of that name."""
    return next(
        getattr(home, name)
        for home in (run, evaluation, owner, lineage, samples, sweep_record, data, data.types)
        if hasattr(home, name)
    )


def keys(typed_dict: Any, beside: Any = None) -> str:
    """A table of the keys of a TypedDict, without those of another."""
    rows = []
    for name, hint in typing.get_type_hints(typed_dict, include_extras=True).items():
        if beside and name in beside.__annotations__:
            continue
        optional = typing.get_origin(hint) is typing.NotRequired
        hint = typing.get_args(hint)[0] if optional else hint
        plain, said = typing.get_args(hint)[:2] if typing.get_origin(hint) is typing.Annotated else (hint, "")
        rows.append([f"`{name}`{', optional' if optional else ''}", f"`{_type(plain)}`", said])
    head = ["key", "type", "what it is"] if any(row[2] for row in rows) else ["key", "type"]
    return f"{_doc(typed_dict)}\n\n{table(head, (row[: len(head)] for row in rows))}"


def _type(plain: Any) -> str:
    if typing.get_origin(plain) is typing.Literal:
        return "str"
    if typing.is_typeddict(plain):
        return "dict"
    return (
        plain.__name__ if isinstance(plain, type) and not typing.get_args(plain) else re.sub(r"\w+\.", "", str(plain))
    )


# architecture.md


def architecture(text: str) -> str:
    """The document with its table of packages written anew."""
    return re.sub(
        r"(<!-- packages -->\n).*?(<!-- end -->)", lambda match: match[1] + packages() + match[2], text, flags=re.S
    )


def packages() -> str:
    """Modules and packages in the order of imports, with the first sentence of each and the files of a package."""
    home = Path(sftdemo.__file__).parent
    rows = []
    for name in [part for top in ORDER if top != "__main__" for part in (top, *_packages_in(home, top))]:
        door = home / name / "__init__.py" if (home / name).is_dir() else home / f"{name}.py"
        about = (
            (ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
        )
        files = sorted(path.stem for path in (home / name).glob("*.py") if path.name != "__init__.py")
        rows.append((f"`{name}`", about, " ".join(files)))
    return table(("package", "what is in it", "files"), rows)


def _packages_in(home: Path, package: str) -> list[str]:
    """The packages inside a package, as "data/files", in the order of imports where tests/test_layers.py has one."""
    inside = sorted(path.parent.name for path in (home / package).glob("*/__init__.py"))
    order = INSIDE.get(package, inside)
    return [f"{package}/{name}" for name in sorted(inside, key=order.index)]


# metrics.md


def metrics(text: str) -> str:
    """The document with its table of metrics written anew, from the registry."""
    head = ("metric", "what it is", "scale", "better", "test", "source")
    rows = (
        (
            f"`{metric.name}`",
            metric.definition or metric.notes[0],
            f"0–{metric.scale}" if metric.scale else "open",
            "higher" if metric.higher_is_better else "lower",
            "McNemar" if metric.binary else "randomisation",
            metric.source,
        )
        for metric in METRICS.values()
    )
    return re.sub(
        r"(<!-- metrics -->\n).*?(<!-- end -->)",
        lambda match: match[1] + table(head, rows) + match[2],
        text,
        flags=re.S,
    )


# endpoints.md


def endpoints() -> str:
    """Every endpoint of the app and every route that is listed, with who may use it; tests post to each."""
    from sftdemo.ui import build
    from sftdemo.ui.access import guard

    public: list[tuple[str, ...]] = []
    private: Counter[tuple[str, str]] = Counter()
    for event in build().fns.values():
        if event.fn is None:
            continue
        if event.api_visibility == "public":
            public.append((f"`/{event.api_name}`", *_who(event.fn.needs)))
        else:
            handler = event.fn.__qualname__.replace(".<locals>.<lambda>", "")
            private[f"`{handler}`", event.fn.needs] += 1
    head = ("needs", "owner", "visitor", "stranger")
    events = ((handler, str(count), *_who(needs)) for (handler, needs), count in private.items())
    listed = ((f"`{route}`", *_who(needs)) for route, needs in guard.ROUTES.items())
    parts = [NOTE, "# Who may use which endpoint\n\n", ENDPOINTS, "\n## Public, by name\n\n"]
    parts += [table(("name", *head), public), "\n## The page's events, by handler\n\n"]
    parts += [
        table(("handler", "events", *head), events),
        "\n## Routes\n\nA route ending with / stands for all below it.\n\n",
    ]
    parts.append(table(("route", *head), [*listed, ("every other", *_who("manage"))]))
    return "".join(parts)


ENDPOINTS = (
    "The *owner* is who reaches the app on its own machine, or has signed in; a *stranger* comes from another site's page, or "
    "under a name that isn't the app's. *Visitors* are all others: what is *allowed* to them is decided by `--visitors-chat`, "
    "`--visitors-vote` (on), `--visitors-evaluate`, `--visitors-train` and `--visitors-own-data` (off), within limits "
    "(`sftdemo app --help`). An event that visitors may use gives each its own: they stop only what they started, and see "
    "neither paths nor files to download. `tests/test_endpoints.py` posts to every endpoint as each of the three.\n"
)


def _who(needs: str) -> tuple[str, str, str, str]:
    """What an endpoint needs, and whether each kind of sender may use it."""
    return needs, "yes", {"look": "yes", "manage": "no"}.get(needs, "if allowed"), "no"


def openai() -> str:
    """What the page says to those who come from OpenAI's fine-tuning, and where more is."""
    from sftdemo.ui.tabs.coming_from import guide

    more = (
        "\nMore: [commands.md](commands.md) has every flag, [hosting.md](hosting.md) what it takes to serve others.\n"
    )
    return NOTE.replace("edit the code", "edit sftdemo/ui/texts/openai.en.md") + guide("en") + more


def documents() -> dict[Path, str]:
    """What each document should hold."""
    folder, house, scores = DOCS / "run-folder.md", DOCS / "architecture.md", DOCS / "metrics.md"
    return {
        house: architecture(house.read_text(encoding="utf-8")),
        scores: metrics(scores.read_text(encoding="utf-8")),
        DOCS / "commands.md": commands(),
        DOCS / "endpoints.md": endpoints(),
        DOCS / "openai.md": openai(),
        DOCS / "python.md": python(),
        folder: run_folder(folder.read_text(encoding="utf-8")),
    }


def main() -> int:
    stale = [(path, text) for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(DOCS.parent)} {'is out of date' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
