"""An MCP server of what can be read: a client's model lists runs, reads scores and compares answers, and changes nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sftdemo import __version__, runs
from sftdemo.config.generate import GenerateConfig
from sftdemo.errors import UserError


def list_runs() -> list[dict[str, Any]]:
    """All runs, newest first: name, data, model, method, state, and the leading metric of base and tuned."""
    return [runs.overview(run) for run in runs.list_runs()]


def scores(run: str, evaluation: str = "") -> dict[str, Any]:
    """A run's measured scores: base, tuned, their differences with 95 % intervals and p-values, and a summary in words.

    `evaluation` is the name of one of its evaluations; default: the newest.
    """
    chosen = runs.named(run)
    names = chosen.evaluations()
    if not names:
        raise UserError("Run {run} has no evaluation yet; evaluate it first.", run=run)
    if evaluation and evaluation not in names:
        raise UserError("Run {run} has no evaluation {name!r}; it has: {names}.", run=run, name=evaluation, names=names)
    measured: Any = chosen.scores(evaluation or names[0])
    return {key: value for key, value in measured.items() if key != "outputs"}


def compare(
    run: str, prompt: str, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 42
) -> dict[str, Any]:
    """The answers of base and tuned to one prompt, side by side, with their tokens per second."""
    from sftdemo.inference.server import MODELS
    from sftdemo.verbs import compare as comparison

    config = GenerateConfig(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    if labels := comparison.labelled(runs.named(run), prompt):
        return labels
    return comparison.compare(run, prompt, config.check(), MODELS.open([runs.named(run)]).pair)


TOOLS: tuple[Callable[..., Any], ...] = (list_runs, scores, compare)


def serve() -> None:
    """Answer on standard input and output until the client closes them."""
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp_types import ToolAnnotations
        from pydantic import ValidationError
    except ImportError:
        raise UserError("The MCP server needs the package mcp, version 2; `pip install 'mcp>=2.3,<3'`.") from None

    def plainly(tool: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(tool)
        def answer(*arguments: Any, **named: Any) -> Any:
            try:
                return tool(*arguments, **named)
            except UserError as error:
                raise ToolError(str(error)) from None  # what the client's model is told; another fault stays in the log

        return answer

    class Server(MCPServer):  # type: ignore[misc]
        async def call_tool(self, *arguments: Any, **named: Any) -> Any:
            try:
                return await super().call_tool(*arguments, **named)
            except ToolError as error:
                if isinstance(error.__cause__, ValidationError):  # several lines of pydantic's, with a link
                    wrong = (f"{each['loc'][-1]}: {each['msg']}" for each in error.__cause__.errors())
                    raise ToolError(f"The arguments don't fit: {'; '.join(wrong)}.") from None
                raise

    server = Server("sftdemo", version=__version__, instructions="Fine-tuned chat models, measured against their base.")
    for tool in TOOLS:
        server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))(plainly(tool))
    server.run("stdio")
