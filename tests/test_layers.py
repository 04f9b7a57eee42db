"""Imports point down only, and the light doors stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sftdemo"
LAYERS = {
    0: ("errors", "config", "files", "log", "schema", "registry", "thoughts", "words", "labels", "sums", "metrics", "answers", "structured", "statistics", "verdict", "preference", "scoring", "scorecard"),
    1: ("data", "runs", "votes", "predictions", "outputs", "processes"),
    2: ("support", "hub", "machine", "memory", "chat_template", "turns", "encoding", "detokenizer", "rows", "packing", "lengths", "masks", "parity", "attention", "grouped", "fused", "last_layer", "loss", "lora", "cache", "batch", "generate", "models", "measures"),
    3: (
        "card", "trainer", "training", "evaluation", "forgetting", "comparison", "inspection", "xray", "export", "jobs", "flags", "commands",
        "__main__",
    ),
    4: ("ui",),
}  # fmt: skip
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
# The one step up: a score may be asked for through the classes of `measures`, loaded then; the app command opens the web.
EXCEPTIONS = {("scoring", "measures"), ("commands", "ui")}
HEAVY = {"torch", "transformers", "gradio", "peft", "evaluate", "datasets", "pandas"}


def imports(path: Path) -> set[str]:
    """Absolute names of all modules a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            if node.module == "sftdemo":
                found.update(f"sftdemo.{alias.name}" for alias in node.names)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imports(path):
        if not name.startswith("sftdemo."):
            continue
        other = name.split(".")[1]
        assert LAYER[other] <= LAYER[room] or (room, other) in EXCEPTIONS, (
            f"{room} imports {other}, which stands above it"
        )


def test_every_room_has_a_layer():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms == set(LAYER)


def test_files_stay_small():
    assert not [str(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400]


def test_functions_of_the_page_stay_small():
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in (PACKAGE / "ui").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert not long


def test_no_package_hides_the_library_datasets():
    assert not (PACKAGE.parent / "datasets" / "__init__.py").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import sftdemo; sftdemo.TrainConfig",
        "import sftdemo.jobs, sftdemo.votes, sftdemo.data, sftdemo.scoring, sftdemo.statistics, sftdemo.preference",
        "import sftdemo.__main__ as main; main.parser().format_help()",
        "import sftdemo; sftdemo.read('support_tickets')",
    ],
)
def test_light_doors_load_nothing_heavy(code):
    probe = f"import sys\n{code}\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.strip() == "[]"


def test_functions_are_not_hidden_by_modules():
    import sftdemo
    import sftdemo.evaluation
    import sftdemo.training

    assert all(callable(getattr(sftdemo, name)) for name in sftdemo.__all__)
