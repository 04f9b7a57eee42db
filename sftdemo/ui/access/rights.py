"""Who may do what: every event of the page and every public endpoint asks here before it does anything."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import functools
import hashlib
import hmac
import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sftdemo import files, runs
from sftdemo.errors import Text, UsageError, UserError
from sftdemo.ui import handlers
from sftdemo.ui.access import cookies, hosts
from sftdemo.ui.access.ledger import MOST_KEPT, Ledger, Limit
from sftdemo.ui.access.settings import AppConfig

# "manage" is for the owner alone: stop and delete others' work, export, exclude raters, paths, server folders, Hub ids.
Action = Literal["look", "chat", "share", "vote", "evaluate", "train", "own_data", "manage"]
ACTIONS: tuple[Action, ...] = get_args(Action)

REFUSED: dict[Action, Text] = {
    "look": Text("This app can't be used from here."),
    "chat": Text("Only the owner of this app may chat; sign in as its owner."),
    "share": Text("Only the owner of this app may share chats; sign in as its owner."),
    "vote": Text("Only the owner of this app may vote; sign in as its owner."),
    "evaluate": Text("Only the owner of this app may evaluate; sign in as its owner."),
    "train": Text("Only the owner of this app may train; sign in as its owner."),
    "own_data": Text("Only the owner of this app may upload data; sign in as its owner."),
    "manage": Text("Only the owner of this app may do that; sign in as its owner."),
}


@dataclass(frozen=True)
class Visitor:
    """Whoever sent a request.

    `key` names the browser, or where no cookie tells it (`browser` is False) the address and the session; `name` is an
    account, or ""; `since` is when a browser got its cookie, in seconds since 1970, and 0 of a script.
    """

    role: Literal["owner", "visitor", "stranger"]
    key: str
    name: str = ""
    address: str = ""
    browser: bool = False
    since: float = 0.0

    @property
    def owner(self) -> bool:
        return self.role == "owner"

    def may(self, action: Action) -> bool:
        """Whether this visitor may do it at all, whatever the limits."""
        return self.owner or (self.role == "visitor" and action in _policy.open_to_visitors)


NOT_YOURS = Text("Only who started it, or the owner of this app, may stop it.")
MOST_STARTERS = 1_000
_starters: dict[str, str] = {}  # visitor keys by work

LOCAL = Visitor("owner", "local")  # the caller of a handler from Python, and the app itself
UNTOLD = Visitor("stranger", "untold")  # who sent what doesn't tell from whom it is
_for_owner = contextvars.ContextVar("the app works by itself", default=False)
IN_SCOPE = "sftdemo.visitor"
GUESSES, ALL_GUESSES = 10, 1_000  # wrong passwords an hour, from an address and in all


@dataclass(frozen=True)
class Policy:
    """The settings that decide, and where the app listens."""

    config: AppConfig
    hosts: hosts.Hosts
    ledger: Ledger = field(default_factory=Ledger)
    wrong: dict[bytes, None] = field(default_factory=dict)  # passwords in headers that were wrong, the latest last

    @property
    def at_home(self) -> bool:
        """Whether only this machine can reach the app, and nobody signs in."""
        return self.hosts.local and not self.config.password and not os.environ.get("SPACE_ID")

    @functools.cached_property
    def open_to_visitors(self) -> set[Action]:
        return {"look", *(action for action in ACTIONS if getattr(self.config, f"visitors_{action}", False))}


_policy = Policy(AppConfig(), hosts.Hosts("127.0.0.1", []))


def use(config: AppConfig, bound: str) -> None:
    """Let these settings decide from now on; `bound` is the address that the app listens on."""
    global _policy
    _policy = Policy(config, hosts.Hosts(bound, config.listed("allowed_hosts"), config.listed("proxies")))
    runs.show_to(_sees)


def policy() -> Policy:
    return _policy


def ledger() -> Ledger:
    return _policy.ledger


def visitor(request: Any) -> Visitor:
    """Who sent a request (gr.Request or Starlette's). What doesn't tell is nobody's; without a request it is a call from Python,
    which is the owner's as long as only this machine can reach the app."""
    if request is None and _policy.at_home:
        return LOCAL
    scope = getattr(getattr(request, "request", None) or request, "scope", None)
    if scope is None:
        return UNTOLD
    if IN_SCOPE not in scope:
        scope[IN_SCOPE] = classify(scope)
    sender: Visitor = scope[IN_SCOPE]
    session = getattr(request, "session_hash", None)
    if sender.browser or not session:
        return sender
    return replace(sender, key=key_of(f"{sender.address} {session}"))  # scripts keep no cookies


def current() -> Visitor:
    """Who sent the event that is being handled; within `for_owner` and without an event, it is the owner."""
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    return LOCAL if request is None and _for_owner.get() else visitor(request)


@contextlib.contextmanager
def for_owner() -> Iterator[None]:
    """Within, and as a decorator: what the app does by itself, or for whom its owner has given a key, is done as its owner."""
    before = _for_owner.set(True)
    try:
        yield
    finally:
        _for_owner.reset(before)


def _sees() -> Callable[[runs.Run], bool] | None:
    """Which runs are there for who sent the event that is handled; None for all."""
    sender = current()
    return None if sender.owner else lambda run: is_shown(run, sender)


def is_shown(run: runs.Run, visitor: Visitor) -> bool:
    """Whether a visitor sees a run: one that they started; of the others the owner's, unless the owner has chosen otherwise."""
    choice, starter = _shown_to(
        str(run.path), *(files.version(run.path / name) for name in ("notes.json", "started.json"))
    )
    return starter == visitor.key or choice == "shown" or (choice == "usual" and starter is None)


def sees(name: str) -> bool:
    """Whether who sent the event that is handled sees a run of that name; its owner sees also those that are gone."""
    sender = current()
    try:
        return sender.owner or is_shown(runs.known(name), sender)
    except UserError:
        return False


def called(run: runs.Run) -> str:
    """What a run is called to who sent the event that is handled: by its name where they see it."""
    return run.name if sees(run.name) else Text("another run")


@functools.lru_cache(maxsize=8192)
def _shown_to(path: str, *_versions: object) -> tuple[str, str | None]:
    """What the owner has chosen about visitors, and the visitor who started the run; of a file that is damaged, the least."""
    run = runs.Run(Path(path))
    try:
        starter = run.starter()
        return run.notes().get("visitors", "usual"), starter["visitor"] if starter else None
    except runs.DamagedRun:
        return "hidden", None


def asker(request: Any) -> tuple[str, str]:
    """Who asks the models: where from, and the page that it asks on."""
    sender = visitor(request)
    return sender.address, f"{sender.key}/{getattr(request, 'session_hash', None)}"


def classify(scope: Mapping[str, Any]) -> Visitor:
    """Who sent the request that an ASGI scope describes."""
    address = _policy.hosts.sender(scope)
    if _policy.hosts.fault(scope):
        return Visitor("stranger", "stranger", address=address)
    browser = cookies.identity(cookies.BROWSER, scope)
    name = account(scope)
    owns = _owns_by_address(scope) or _owns_by_account(scope, name) or _has_password(scope, address)
    key = key_of(browser or address)
    since = cookies.issued(cookies.BROWSER, scope) if "sec-fetch-site" in hosts.headers(scope) else 0.0
    return Visitor("owner" if owns else "visitor", key, name, address, bool(browser), since)


def key_of(text: str) -> str:
    """What stands for a browser's cookie, or for an address."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _owns_by_address(scope: Mapping[str, Any]) -> bool:
    """Whether it comes from this machine to an app that only this machine can reach.

    A password says that others reach it after all, perhaps through a proxy that doesn't tell.
    """
    peer = str((scope.get("client") or ("",))[0])
    return _policy.at_home and hosts.is_loopback(peer) and not hosts.is_forwarded(scope)


def can_sign_in() -> bool:
    """Whether visitors can sign in with their account: on a Space with hf_oauth, where the libraries for it are there.

    The client's secret signs the sessions; without it anybody could.
    """
    libraries = all(map(importlib.util.find_spec, ("authlib", "itsdangerous")))
    return libraries and all(os.environ.get(name) for name in ("SPACE_ID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"))


def _profile(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the Hub says of the account that signed in, or {}; there are sessions only where can_sign_in() says so."""
    signed_in = (scope.get("session") or {}).get("oauth_info") or {}
    if not signed_in or signed_in.get("expires_at", 0) < time.time():
        return {}
    profile: Mapping[str, Any] = signed_in.get("userinfo") or {}
    return profile


def account(scope: Mapping[str, Any]) -> str:
    """The name of the account that signed in, or ""."""
    return str(_profile(scope).get("preferred_username") or "")


def _owns_by_account(scope: Mapping[str, Any], name: str) -> bool:
    """Whether the account is one of the owners'. Names are compared as they are written: look-alikes are others."""
    if not name:
        return False
    if owners := _policy.config.listed("owners"):
        return name in owners
    creator = os.environ.get("SPACE_CREATOR_USER_ID")
    return name == os.environ.get("SPACE_AUTHOR_NAME") or (bool(creator) and _profile(scope).get("sub") == creator)


def _has_password(scope: Mapping[str, Any], address: str) -> bool:
    """Whether the owner's password came with the request, or a cookie that it was exchanged for."""
    if not _policy.config.password:
        return False
    if cookies.identity(cookies.OWNER, scope):
        return True
    kind, _, value = hosts.headers(scope).get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        with contextlib.suppress(ValueError):
            value = base64.b64decode(value, validate=True).decode().partition(":")[2]
    elif kind.lower() != "bearer" or is_api_key(value):  # the key of /v1 is no guess
        return False
    attempt = hashlib.sha256(f"{address} {value}".encode()).digest()
    if attempt in _policy.wrong:  # the same header with each request is one guess
        return False
    with contextlib.suppress(UserError):  # too many guesses: whoever it is stays a visitor
        if is_password(value, address):
            return True
        _policy.wrong[attempt] = None
        while len(_policy.wrong) > MOST_KEPT:
            del _policy.wrong[next(iter(_policy.wrong))]
    return False


def is_api_key(value: str) -> bool:
    """Whether it is the key of the OpenAI-compatible endpoint."""
    key = _policy.config.api_key
    return bool(key) and hmac.compare_digest(value.encode(), str(key).encode())


def is_password(guess: str, address: str) -> bool:
    """Whether it is the owner's password; raises UserError after too many wrong guesses from an address."""
    limits = [Limit(address, GUESSES), Limit("all", ALL_GUESSES)]
    ledger().take("guess", limits, 1, too_many_guesses)
    expected, received = (hashlib.sha256(text.encode()).digest() for text in (_policy.config.password or "", guess))
    right = bool(_policy.config.password) and hmac.compare_digest(expected, received)
    if right:
        ledger().give_back("guess", limits, 1)
    return right


def too_many_guesses(limit: Limit, wait_s: float) -> UserError:
    return UserError("Too many wrong passwords; try again in {minutes} min.", minutes=math.ceil(wait_s / 60))


def check_owner_can_sign_in(config: AppConfig, bound: str) -> None:
    """Raise UsageError if others can reach the app and nobody could sign in as its owner."""
    if hosts.Hosts(bound, []).local or config.password or can_sign_in():
        return
    raise UsageError(
        "Listening on {host} lets others reach the app, and nobody could sign in as its owner: set SFTDEMO_PASSWORD, or run "
        "it on a Space with hf_oauth (SFTDEMO_OWNERS names its owners there).",
        host=bound,
    )


def require(request: Any, action: Action) -> Visitor:
    """The sender of the request, who may do this; raises UserError for everybody else."""
    sent_by = visitor(request)
    if not sent_by.may(action):
        raise UserError(REFUSED["look" if sent_by.role == "stranger" else action])
    return sent_by


def started(work: str, visitor: Visitor) -> None:
    """Keep who started some work, as "train NAME", so that they may stop it; the owner may stop all."""
    _starters[work] = visitor.key
    while len(_starters) > MOST_STARTERS:
        del _starters[next(iter(_starters))]


def ended(work: str, now: str) -> None:
    """Call work that has ended something else, as its name may be that of others' work by and by."""
    if work in _starters:
        _starters[now] = _starters.pop(work)


def may_stop(work: str, visitor: Visitor) -> bool:
    """Whether the visitor began it, perhaps before the app was started again, or owns the app."""
    return visitor.owner or (visitor.role == "visitor" and visitor.key in (_starters.get(work), _kept_starter(work)))


def _kept_starter(work: str) -> str | None:
    """The key of the visitor who began a training, as the run's folder has it."""
    kind, _, name = work.partition(" ")
    with contextlib.suppress(UserError):  # gone, or damaged
        return (runs.known(name).starter() or {"visitor": None})["visitor"] if kind == "train" else None
    return None


def require_own(work: str, visitor: Visitor) -> None:
    """Raise UserError unless the visitor may stop it."""
    if not may_stop(work, visitor):
        raise UserError(NOT_YOURS)


def guarded(handler: Callable[..., Any], needs: Action) -> Callable[..., Any]:
    """The handler of an event, run only for those who may; Gradio keeps the request of each event in a context."""
    from gradio.context import LocalContext

    @contextlib.contextmanager
    def allowed() -> Iterator[None]:
        require(LocalContext.request.get(None), needs)
        yield

    safe = handlers.inside(handler, allowed)
    safe.__dict__["needs"] = needs
    return safe
