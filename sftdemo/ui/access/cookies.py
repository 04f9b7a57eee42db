"""Signed values in cookies: which browser it is, and that it has signed in as the owner."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import cookie_parser

from sftdemo.log import LOG
from sftdemo.runs import home
from sftdemo.ui.access.hosts import headers

BROWSER, OWNER = "sftdemo_visitor", "sftdemo_owner"  # the cookies
LIFETIME_S = {BROWSER: 365 * 24 * 3600, OWNER: 24 * 3600}

KEY_BYTES = 32
_owner_key = secrets.token_bytes(KEY_BYTES)  # a restarted app lets the owner sign in again
_ended: dict[str, float] = {}  # values signed out before their time, and when they expire


def signed(cookie: str) -> str:
    """A new value for a cookie, `id.expiry.signature`."""
    text = f"{secrets.token_hex(16)}.{int(time.time()) + LIFETIME_S[cookie]}"
    return f"{text}.{_signature(cookie, text)}"


def _signature(cookie: str, text: str) -> str:
    key = _owner_key if cookie == OWNER else _browser_key(home() / "browsers.key")
    return hmac.new(key, f"{cookie}={text}".encode(), hashlib.sha256).hexdigest()


def pseudonym(text: str) -> str:
    """What stands for an address on disk: always the same in this home, and nothing that the address can be told from."""
    return _signature("pseudonym", text)[:16]


@lru_cache(maxsize=8)
def _browser_key(path: Path) -> bytes:
    """The key of this home, which a restarted app reads again: a browser stays the visitor whose uploads lie here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != KEY_BYTES:
            part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            _keep_first(part, path)
        return path.read_bytes()
    except OSError as error:
        LOG.warning("Browsers are forgotten at a restart of the app: %s", error)
        return _owner_key


def _keep_first(part: Path, path: Path) -> None:
    """Give the new key its place, unless another process of this home has put its own there meanwhile."""
    try:
        os.link(part, path)
    except OSError:  # it is there, or the disk knows no links
        if not path.is_file() or path.stat().st_size != KEY_BYTES:
            part.replace(path)
    part.unlink(missing_ok=True)


def identity(cookie: str, scope: Mapping[str, Any]) -> str:
    """The id in the request's cookie, or "" if it has none that was signed here and still counts."""
    return _genuine(cookie, scope)[0]


def issued(cookie: str, scope: Mapping[str, Any]) -> float:
    """When the request's cookie was signed, in seconds since 1970; 0 if it has none that counts."""
    name, expiry = _genuine(cookie, scope)
    return expiry - LIFETIME_S[cookie] if name else 0.0


def _genuine(cookie: str, scope: Mapping[str, Any]) -> tuple[str, float]:
    """The id in the request's cookie and when it expires."""
    value = _value(cookie, scope)
    text, _, signature = value.rpartition(".")
    name, _, expiry = text.partition(".")
    genuine = hmac.compare_digest(signature.encode(), _signature(cookie, text).encode())
    return (name, float(expiry)) if genuine and float(expiry) > time.time() and value not in _ended else ("", 0.0)


def _value(cookie: str, scope: Mapping[str, Any]) -> str:
    return cookie_parser(headers(scope).get("cookie", "")).get(cookie, "")


def end(cookie: str, scope: Mapping[str, Any]) -> None:
    """Let the value in the request's cookie count no more."""
    now = time.time()
    for value in [value for value, expiry in _ended.items() if expiry < now]:
        del _ended[value]
    if identity(cookie, scope):
        _ended[_value(cookie, scope)] = now + LIFETIME_S[cookie]


def set_cookie(cookie: str, value: str, scope: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The header that sets the cookie, or without a value removes it.

    A Space is shown in a frame of another site, where only a cookie for that frame alone (Partitioned) is sent.
    """
    life = LIFETIME_S[cookie] if value else 0
    parts = [f"{cookie}={value}", "Path=/", f"Max-Age={life}", "HttpOnly"]
    if os.environ.get("SPACE_ID"):
        parts += ["Secure", "SameSite=None", "Partitioned"]
    else:
        secure = scope.get("scheme") == "https" or headers(scope).get("x-forwarded-proto") == "https"
        parts += [*(["Secure"] if secure else []), "SameSite=Lax"]
    return b"set-cookie", "; ".join(parts).encode()
