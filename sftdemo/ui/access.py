"""Who may do what: every event of the page and every public endpoint asks here before it does anything."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sftdemo.errors import UserError
from sftdemo.ui.hosts import Hosts, is_forwarded, is_loopback, sender
from sftdemo.ui.settings import AppConfig

# "manage" is for the owner alone: stop and delete others' work, export, exclude raters, paths, server folders, Hub ids.
Action = Literal["look", "chat", "vote", "evaluate", "train", "own_data", "manage"]
ACTIONS: tuple[Action, ...] = get_args(Action)

REFUSED: dict[Action, str] = {
    "look": "This app can't be used from here.",
    "chat": "Only the owner of this app may chat; sign in as its owner.",
    "vote": "Only the owner of this app may vote; sign in as its owner.",
    "evaluate": "Only the owner of this app may evaluate; sign in as its owner.",
    "train": "Only the owner of this app may train; sign in as its owner.",
    "own_data": "Only the owner of this app may upload data; sign in as its owner.",
    "manage": "Only the owner of this app may do that; sign in as its owner.",
}


@dataclass(frozen=True)
class Visitor:
    """Whoever sent a request. `key` names the browser, for limits; `address` the machine; `name` an account, or ""."""

    role: Literal["owner", "visitor", "stranger"]
    key: str
    name: str = ""
    address: str = ""

    @property
    def owner(self) -> bool:
        return self.role == "owner"

    def may(self, action: Action) -> bool:
        """Whether this visitor may do it at all, whatever the limits."""
        return self.owner or (self.role == "visitor" and action in _policy.open_to_visitors)


LOCAL = Visitor("owner", "local")  # the caller of a handler from Python, without any request
IN_SCOPE = "sftdemo.visitor"


@dataclass(frozen=True)
class Policy:
    """The settings that decide, and where the app listens."""

    config: AppConfig
    hosts: Hosts

    @functools.cached_property
    def open_to_visitors(self) -> set[Action]:
        return {"look", *(action for action in ACTIONS if getattr(self.config, f"visitors_{action}", False))}


_policy = Policy(AppConfig(), Hosts("127.0.0.1", []))


def use(config: AppConfig, bound: str) -> None:
    """Let these settings decide from now on; `bound` is the address that the app listens on."""
    global _policy
    _policy = Policy(config, Hosts(bound, config.listed("allowed_hosts")))


def policy() -> Policy:
    return _policy


def visitor(request: Any) -> Visitor:
    """Who sent a request (gr.Request or Starlette's). Without one, as in a call from Python, it is the owner."""
    scope = getattr(getattr(request, "request", None) or request, "scope", None)
    if scope is None:
        return LOCAL
    if IN_SCOPE not in scope:
        scope[IN_SCOPE] = classify(scope)
    sent_by: Visitor = scope[IN_SCOPE]
    return sent_by


def classify(scope: Mapping[str, Any]) -> Visitor:
    """Who sent the request that an ASGI scope describes."""
    where = sender(scope)
    if _policy.hosts.fault(scope):
        return Visitor("stranger", "stranger", address=where)
    key = hashlib.sha256(where.encode()).hexdigest()[:16]
    return Visitor("owner" if _owns_by_address(scope) else "visitor", key, address=where)


def _owns_by_address(scope: Mapping[str, Any]) -> bool:
    """Whether it comes from this machine to an app that only this machine can reach."""
    if _policy.config.password or os.environ.get("SPACE_ID") or is_forwarded(scope):
        return False
    return _policy.hosts.local and is_loopback(str((scope.get("client") or ("",))[0]))


def require(request: Any, action: Action) -> Visitor:
    """The sender of the request, who may do this; raises UserError for everybody else."""
    sent_by = visitor(request)
    if not sent_by.may(action):
        raise UserError(REFUSED["look" if sent_by.role == "stranger" else action])
    return sent_by


def guarded(handler: Callable[..., Any], needs: Action) -> Callable[..., Any]:
    """The handler of an event, run only for those who may; Gradio keeps the request of each event in a context."""
    from gradio.context import LocalContext

    @functools.wraps(handler)
    def answer(*arguments: Any, **named: Any) -> Any:
        require(LocalContext.request.get(None), needs)
        return handler(*arguments, **named)

    @functools.wraps(handler)
    def answers(*arguments: Any, **named: Any) -> Iterator[Any]:
        require(LocalContext.request.get(None), needs)
        yield from handler(*arguments, **named)

    safe = answers if inspect.isgeneratorfunction(handler) else answer
    safe.__dict__["needs"] = needs
    return safe
