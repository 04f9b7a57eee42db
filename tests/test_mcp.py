"""The MCP server, asked by a real client over standard input and output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from sftdemo.__main__ import main
from tests.test_ui import add_evaluation, made_run

pytestmark = pytest.mark.slow

mcp = pytest.importorskip("mcp", reason="mcp isn't installed")
ROOT = Path(__file__).parents[1]


def test_a_client_reads_runs_and_scores_and_is_told_what_is_wrong(home: Path) -> None:
    add_evaluation(made_run("tickets"))
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    server = mcp.StdioServerParameters(
        command=sys.executable, args=["-m", "sftdemo", "mcp"], env={**os.environ}, cwd=str(ROOT)
    )

    async def ask() -> None:
        async with mcp.Client(server) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"list_runs", "scores", "compare"}
            assert all(tool.annotations.read_only_hint for tool in tools.values())
            listed = (await client.call_tool("list_runs", {})).structured_content["result"]
            assert [run["name"] for run in listed] == ["tickets"] and "/" not in str(listed)
            scores = (await client.call_tool("scores", {"run": "tickets"})).structured_content
            assert scores["difference"]["accuracy"]["delta"] == 0.5 and "outputs" not in scores
            for arguments, problem in (
                ({"run": "none"}, "no run"),
                ({"run": "../tickets"}, "a run's name"),
                ({"run": "tickets", "evaluation": "x"}, "no evaluation 'x'"),
                ({"run": 5}, "run: input should be a valid string"),
                ({}, "run: field required"),
            ):
                refused = await client.call_tool("scores", arguments)
                said = refused.content[0].text
                assert refused.is_error and problem in said.lower() and "\n" not in said

    anyio.run(ask)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    assert main(["mcp"]) == 1
    assert "pip install" in capsys.readouterr().err
