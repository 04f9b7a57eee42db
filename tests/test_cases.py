"""Files that people bring (../shared/cases): each is read as meant, or gives the one clear message its case allows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sftdemo.__main__ import main

CASES = Path(__file__).parents[2] / "shared" / "cases"
EXPECTED = json.loads((CASES / "expected.json").read_text(encoding="utf-8")) if CASES.is_dir() else []

if not EXPECTED:
    pytest.skip(f"{CASES} is not here: the cases belong to the workplace, not to us", allow_module_level=True)


@pytest.fixture
def check(capsys, babbler):
    """`check FILE --json`, with the exit status among the keys."""

    def run(file: str, *arguments: str, row: int | None = 1) -> dict[str, Any]:
        rows = ["--row", str(row)] if row else []
        status = main(["check", str(CASES / file), "--model", babbler, "--json", *rows, *arguments])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return {"status": status, "error": told.err, **(json.loads(told.out) if told.out else {})}

    return run


def learned(value: dict[str, Any], supervised: bool = True) -> str:
    text = "".join(token["text"] for token in value["xray"] if token["supervised"] == supervised)
    return text.replace("<|im_end|>", "").strip()


def texts(value: dict[str, Any], *kinds: str) -> str:
    """All faults, warnings or notes of these kinds as one text."""
    parts = [part for kind in kinds for part in value[kind]]
    return "\n".join(part if isinstance(part, str) else " ".join(map(str, part.values())) for part in parts)


def shows(case: dict[str, Any], value: dict[str, Any], check: Any, arguments: list[str]) -> None:
    """Fail unless the value is what the case asks for."""
    assert value["status"] == 0, texts(value, "faults") if "faults" in value else value["error"]
    assert len(value["faults"]) <= case.get("max_faults", 0)
    assert value["examples"] == case["examples"] if case["examples"] else value["examples"] > 0
    if case.get("read") and not re.search(case["read"], learned(value, supervised=False)):
        assert "or_warns" in case, learned(value, supervised=False)
        assert case["or_warns"] in texts(value, "warnings")
    assert re.search(case["learned"], learned(value)), learned(value)
    if "never_learned" in case:
        rows = [check(case["file"], *arguments, row=row) for row in range(1, value["examples"] + 1)]
        assert not [row for row in rows if re.search(case["never_learned"], learned(row))]
    if case.get("notes"):
        assert value["notes"] or value["warnings"]
    if "split" in case:
        assert value["mapping"]["split"] == case["split"] and value["split_sizes"]["test"]
    if case.get("encoding"):
        note = next(note for note in value["notes"] if "--encoding" in note)
        named = re.search(r"read as ([\w-]+)", note)
        assert named
        same, other = (check(case["file"], *arguments, "--encoding", name) for name in (named[1], "cp437"))
        assert same["xray"] == value["xray"] != other["xray"]


@pytest.mark.parametrize("case", EXPECTED, ids=[case["file"] for case in EXPECTED])
def test_case(case, check):
    given = case.get("args", [])
    value = check(case["file"], *given)
    allowed = case.get("args_or", [])
    if value["status"] and allowed:
        assert all(word in texts(value, "faults", "warnings", "notes") for word in allowed)
        given = [*given, *allowed]
        value = check(case["file"], *given)
    if value["status"] and case.get("or_fault"):
        assert len(value["faults"]) == 1
        return
    shows(case, value, check, given)
