"""Under which names the app answers, whose pages may ask it, and which address a request comes from."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from sftdemo.errors import Text, UsageError
from sftdemo.log import LOG

LOOPBACK = ("localhost", "127.0.0.1", "::1")
FORWARDED = ("forwarded", "via", "x-real-ip")  # beside all that begin with x-forwarded-
SAME_SITE = ("same-origin", "none")
PROXIES_HERE = ("127.0.0.0/8", "::1")
PROXIES_OF_A_SPACE = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
)  # nobody else is so near
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers in small letters; a name sent twice has both values, which no rule here accepts."""
    values: dict[str, str] = {}
    for name, value in scope.get("headers", ()):
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        values[key] = f"{values[key]},{text}" if key in values else text
    return values


def hostname(netloc: str) -> str:
    """The name in `name:port` or `[::1]:port`, in small letters; "" where it is none, or more than that."""
    try:
        parts = urlsplit(f"//{netloc}")
        plain = parts.netloc == netloc and "@" not in netloc and parts.port != 0  # which raises for what is no port
        return (parts.hostname or "").rstrip(".") if plain else ""
    except ValueError:
        return ""


def address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a text is, as an IPv4 address where it is one in IPv6."""
    try:
        parsed = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_loopback(name: str) -> bool:
    parsed = address(name)
    return parsed.is_loopback if parsed else name.lower() == "localhost"


def space_hosts() -> list[str]:
    return [hostname(name.strip()) for name in os.environ.get("SPACE_HOST", "").split(",") if name.strip()]


def network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(
            "SFTDEMO_PROXIES names {proxy!r}, which is no address and no network; write them like 10.1.2.3,172.30.0.0/24.",
            proxy=text,
        ) from None


class Hosts:
    """The names of an app that listens on `bound`; `names` are those the operator allows beside them, `proxies` those whose
    word on who asks counts, beside the ones on this machine and a Space's own."""

    def __init__(self, bound: str, names: list[str], proxies: Iterable[str] = ()) -> None:
        self.bound = bound.strip("[]")
        self.names = {*(hostname(name) for name in names), *space_hosts()}
        of_space = PROXIES_OF_A_SPACE if os.environ.get("SPACE_ID") else ()
        self.proxies = [network(text) for text in (*PROXIES_HERE, *of_space, *proxies)]
        self.has_warned = False

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the app."""
        return is_loopback(self.bound)

    def knows(self, netloc: str) -> bool:
        """Whether a Host header names this app.

        Beyond loopback each IP address passes: a page of another site can make a browser believe that its own name is
        the app's address (DNS rebinding), but can't have an address for a name.
        """
        name = hostname(netloc)
        if name in self.names or is_loopback(name):
            return bool(name)
        return not self.local and (address(name) is not None or name == self.bound.lower())

    def is_proxy(self, name: str) -> bool:
        peer = address(name)
        return peer is not None and any(peer in each for each in self.proxies)

    def drop_made_up(self, scope: MutableMapping[str, Any]) -> None:
        """Take out what a request says of proxies that none of the operator's has passed on: anybody can write that."""
        peer = str((scope.get("client") or ("",))[0])
        kept = [pair for pair in scope["headers"] if not pair[0].lower().startswith(b"x-forwarded-")]
        if len(kept) == len(scope["headers"]) or self.is_proxy(peer):
            return
        scope["headers"] = kept
        if not self.has_warned:
            LOG.warning("X-Forwarded headers of %s don't count; if it is your proxy, name it in SFTDEMO_PROXIES.", peer)
            self.has_warned = True

    def sender(self, scope: Mapping[str, Any]) -> str:
        """The address that a request is counted under; a whole /64 of IPv6, which is one household.

        A proxy adds its client's address on the right; what stands left of it may be made up.
        """
        text = str((scope.get("client") or ("",))[0])
        for entry in reversed(headers(scope).get("x-forwarded-for", "").split(",")):
            if not self.is_proxy(text) or not address(entry.strip()):
                break
            text = entry.strip()
        peer = address(text)
        if isinstance(peer, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((peer, 64), strict=False).network_address)
        return str(peer) if peer else text

    def own_origin(self, origin: str, netloc: str) -> bool:
        """Whether a page of this origin is the app's own, or one under a name that the operator allows."""
        try:
            parts = urlsplit(origin) if "://" in origin else None
        except ValueError:  # half a bracket, say
            return False
        if parts is None or parts.scheme not in ("http", "https"):
            return False
        default = {"http": ":80", "https": ":443"}[parts.scheme]
        same = parts.netloc.lower().removesuffix(default) == netloc.lower().removesuffix(default)
        return same or hostname(parts.netloc) in self.names

    def fault(self, scope: Mapping[str, Any]) -> Text:
        """What is wrong with where a request was sent to or comes from, or ""."""
        sent = headers(scope)
        for name in ("host", "x-forwarded-host"):
            if (name == "host" or name in sent) and not self.knows(sent.get(name, "")):
                return Text(
                    "This app doesn't answer under the host {host!r}; whoever runs it can allow the name by "
                    "SFTDEMO_ALLOWED_HOSTS.",
                    host=sent.get(name, "")[:80],
                )
        origin = sent.get("origin")
        if origin is not None and not any(
            self.own_origin(origin, sent[name]) for name in ("host", "x-forwarded-host") if name in sent
        ):
            return Text("Pages of {origin!r} can't use this app; open it in a tab of its own.", origin=origin[:80])
        opened = sent.get("sec-fetch-mode") == "navigate" and scope.get("method") in ("GET", "HEAD")
        if sent.get("sec-fetch-site", "none") not in SAME_SITE and not opened:
            return Text("Pages of other sites can't use this app; open it in a tab of its own.")
        return Text("")


def is_own_click(scope: Mapping[str, Any]) -> bool:
    """Whether the browser says that one of the app's own pages led here, by a link or a script of its own."""
    sent = headers(scope)
    return sent.get("sec-fetch-site") == "same-origin" and sent.get("sec-fetch-mode") == "navigate"


def is_forwarded(scope: Mapping[str, Any]) -> bool:
    """Whether a proxy passed the request on, so that its address isn't who sent it."""
    return any(name in FORWARDED or name.startswith("x-forwarded-") for name in headers(scope))
