"""The documents say what is true: front matter, commands, files."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import sftdemo
from sftdemo.__main__ import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
DOCS = [README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
OPENAI = (ROOT / "docs" / "openai.md").read_text(encoding="utf-8")
WRITTEN = [
    line for text in DOCS for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()
]
COMMANDS = [
    command[1]
    for line in [*WRITTEN, *re.findall(r"`(sftdemo [^`]+)`", OPENAI)]
    if (command := re.match(r"(?:\w+=\S+ )*(?:python -m )?sftdemo (.+)", line))
]


def front_matter() -> dict[str, str]:
    assert README.startswith("---\n")
    lines = README.split("---\n")[1].splitlines()
    return {key: value.strip().strip('"') for key, value in (line.split(":", 1) for line in lines)}


def test_the_front_matter_is_a_gradio_spaces():
    found = front_matter()
    assert found["sdk"] == "gradio" and (ROOT / found["app_file"]).is_file()
    assert found["sdk_version"].split(".")[:2] == version("gradio").split(".")[:2] or found["sdk_version"] == "6.31.0"
    assert found["python_version"] in ("3.11", "3.12")
    assert found["license"] == "apache-2.0" and len(found["short_description"]) <= 60
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {found["colorFrom"], found["colorTo"]} <= colors


def test_the_two_set_up_commands_stand_as_promised():
    assert "pip install -r requirements.txt && python app.py\n" in BLOCKS
    assert "pip install -r requirements-dev.txt && pytest\n" in BLOCKS


@pytest.mark.parametrize("line", dict.fromkeys(COMMANDS))
def test_every_command_parses(line):
    assert parser().parse_args(shlex.split(line, comments=True))


def test_the_table_of_all_kinds_of_model_is_one_command():
    line = next(line for line in COMMANDS if "run:frozen" in line)
    asked = parser().parse_args(shlex.split(line)).against.split(",")
    trained = {parser().parse_args(shlex.split(each)).name for each in COMMANDS if "--max-examples 640" in each}
    assert {"majority", "linear", "base+8", "run:frozen", "run:lora"} == set(asked)
    assert trained == {"tuned", "frozen", "lora"}, "on the same rows"


def test_every_command_is_documented():
    commands = next(action for action in parser()._actions if action.dest == "command").choices
    for name in commands:
        assert re.search(rf"`[^`]*\b{name}\b", README), name


def test_the_tree_names_every_room():
    tree = README[README.index("app.py               ") :]
    for path in (ROOT / "sftdemo").iterdir():
        room = path.stem
        if room not in ("__init__", "__pycache__"):
            assert re.search(rf"\b{room}\b", tree), room


def test_requirements_give_a_reason_a_line_and_are_bounded_and_reported():
    report = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]:
        assert re.fullmatch(r"[^\s<]+,?<\d\S* +# \S.*", line), line
        name = re.split("[>=<]", line)[0].lower().replace("_", "-")
        assert re.search(rf"^\| \*\*{name}\*\* \| \S+ \| \w", report, re.M), name


def test_the_installed_command_stands_as_promised():
    assert "pip install . && sftdemo app\n" in BLOCKS
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"sftdemo": "sftdemo.__main__:main"}


def test_the_changelog_knows_the_version():
    assert f"## {sftdemo.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")}), ids=lambda path: path.name
)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


def test_ci_and_the_hooks_run_what_is_there():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["tests"]
    assert job["steps"][-1]["run"] == "bash .ci/run" and (ROOT / ".ci" / "run").is_file()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local" and {hook["language"] for hook in repo["hooks"]} == {"system"}


def test_each_lab_note_has_its_place_its_machine_and_its_date():
    text = (ROOT / "docs" / "lab-notes.md").read_text(encoding="utf-8")
    machines, *subjects = text.split("\n## ")
    known = {line.split(" | ")[0].removeprefix("| ") for line in machines.splitlines() if line.startswith("| ")} | {
        "any"
    }
    for line in (line for part in subjects for line in part.splitlines()[4:] if line):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        what, kept, where, gain, machine, noted = cells
        assert what and kept in ("kept", "left") and where and gain and re.fullmatch(r"20\d\d-\d\d-\d\d", noted), line
        assert set(machine.split(", ")) <= known, line
