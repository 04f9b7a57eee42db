"""Imports point down only, in packages and files, and the light doors stay light."""

from __future__ import annotations

import ast
import io
import keyword
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sftdemo"
# Each may import what stands before it, and its own files.
ORDER = (
    "errors", "stages", "log", "files", "config", "schema", "runs", "system", "data", "encoding", "evaluation", "votes", "model", "decode",
    "inference", "systems", "training", "verbs", "ui", "cli", "__main__",
)  # fmt: skip
# The same inside a package that has packages of its own.
INSIDE = {
    "data": (
        "types", "limits", "stored_rows", "text", "files", "values", "layouts", "conversion", "cleaning", "hub", "recipes", "sources",
        "edits", "mixture", "splits", "rehearsal", "reading", "pipeline",
    ),
    "ui": (
        "texts", "handlers", "downloads", "bounds", "job", "models", "openai_request", "access", "served_page", "work", "trainings",
        "hosting", "parts", "data_reader", "chosen_data", "row_edits", "report", "tabs", "blocks", "api", "openai_api", "server",
    ),
}  # fmt: skip
HEAVY = {"torch", "transformers", "gradio", "peft", "evaluate", "datasets", "pandas"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(("sftdemo", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


@cache  # names alone: a million nodes would slow every search for garbage in the tests to come
def imports(path: Path) -> set[str]:
    """The project's modules that a file imports, inside functions and for types alone, too."""
    named = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = {
                alias.name: f"{node.module}.{alias.name}"
                for alias in node.names
                if alias.name not in ("__version__", "__doc__")
            }
            named.update(whole[name] if whole[name] in MODULES else str(node.module) for name in whole)
    return named & MODULES - {module(path)}


def test_imports_point_down():
    wrong = []
    for path in FILES:
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports(path) if package != "__init__" else ():
            other = name.partition(".")[2].partition(".")[0]  # "" is the package itself, which imports from all of it
            if not other or ORDER.index(other) > ORDER.index(package):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}, which stands above it")
    assert not wrong


@pytest.mark.parametrize("package", INSIDE)
def test_imports_point_down_inside_a_package(package):
    order = INSIDE[package]
    inside = {path: path.relative_to(PACKAGE / package).parts[0].removesuffix(".py") for path in FILES
              if path.is_relative_to(PACKAGE / package)}  # fmt: skip
    assert set(inside.values()) - {"__init__"} == set(order)
    for path, part in inside.items():
        for name in imports(path) if part != "__init__" else ():
            parts = name.split(".")
            if parts[1] == package and len(parts) > 2:
                assert order.index(parts[2]) <= order.index(part), f"{path} imports {name}, which stands above it"


def test_no_file_is_in_a_circle():
    below = {module(path): imports(path) - {"sftdemo"} for path in FILES if module(path) != "sftdemo"}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as circle:
        pytest.fail(" → ".join(circle.args[1]))


def test_every_package_has_its_place():
    packages = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert packages == set(ORDER)


def test_files_stay_small():
    root = PACKAGE.parent
    files = [*FILES, *(path for folder in ("benchmarks", "docs") for path in (root / folder).rglob("*.py"))]
    assert not [str(path) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 400]


def test_functions_of_the_page_stay_small():
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in (PACKAGE / "ui").rglob("*.py")
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert not long


def shapes(source: str) -> list[tuple[int, str]]:
    """Each line of code by its number, with names, numbers and texts that say only that they are one."""
    lines: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            stays = token.type == tokenize.OP or keyword.iskeyword(token.string)
            lines.setdefault(token.start[0], []).append(token.string if stays else tokenize.tok_name[token.type])
    return [(number, " ".join(line)) for number, line in lines.items() if line[0] not in ("from", "import")]


def alike(sources: dict[str, str], most: int = 10) -> list[list[str]]:
    """Places that share more lines than that, with whatever names."""
    places: dict[tuple[str, ...], list[str]] = {}
    for name, source in sources.items():
        lines = shapes(source)
        for first in range(len(lines) - most):
            window = tuple(line for _, line in lines[first : first + most + 1])
            if len(set(window)) > 4:  # else a table
                places.setdefault(window, []).append(f"{name}:{lines[first][0]}")
    return [found for found in places.values() if len(found) > 1]


@pytest.mark.slow
def test_no_two_places_share_more_than_ten_lines():
    body = [
        f"{name} = ask(x{place}) {sign} {name}"
        for place, (name, sign) in enumerate(zip("abcdefghijk", "+-*/%+-*/%+", strict=True))
    ]
    source = "\n".join(body)
    assert alike({"a": source, "b": source.replace("ask", "tell")}) and not alike(
        {"a": source, "b": "\n".join(body[1:])}
    )
    root = PACKAGE.parent
    files = [path for path in FILES if path.parent.name != "config"]  # where settings are declared, one as the other
    files += [path for folder in ("benchmarks", "docs") for path in (root / folder).rglob("*.py")]
    assert alike({str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}) == []


def test_no_package_hides_the_library_datasets():
    assert not (PACKAGE.parent / "datasets" / "__init__.py").exists()


LIGHT_DOORS = """
import sys, sftdemo
sftdemo.TrainConfig
import sftdemo.verbs.jobs, sftdemo.votes, sftdemo.data, sftdemo.evaluation.scoring, sftdemo.evaluation.significance
import sftdemo.votes.preference
import sftdemo.__main__ as main
main.parser().format_help()
sftdemo.read("support_tickets")
sftdemo.report
"""


def test_light_doors_load_nothing_heavy():
    probe = f"{LIGHT_DOORS}\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_no_command_loads_torchs_compiler(home):
    probe = "import sys; from sftdemo.__main__ import main; main(['runs']); import peft; print(sorted({'torch._inductor.compile_fx', 'bitsandbytes'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.splitlines()[-1] == "['bitsandbytes']"


def test_functions_are_not_hidden_by_modules():
    import sftdemo
    import sftdemo.training.train
    import sftdemo.verbs.evaluate

    assert all(callable(getattr(sftdemo, name)) for name in sftdemo.__all__)
