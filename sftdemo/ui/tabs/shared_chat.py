"""The page of a shared chat: read only, without scripts, nothing of it fetched; whoever has the link may read it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache, lru_cache

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from sftdemo.errors import Text
from sftdemo.ui.parts import html
from sftdemo.ui.parts.page import title_of
from sftdemo.ui.parts.style import CSS_PATH
from sftdemo.ui.tabs import chat_store
from sftdemo.ui.tabs.chat_store import KeptChat
from sftdemo.ui.tabs.conversation import columns_of
from sftdemo.ui.tabs.transcript import View, past_and_now
from sftdemo.ui.texts import language, say
from sftdemo.ui.texts.faults import in_words

GONE = Text("There is no shared chat at this address; it may have been deleted or is no longer shared.")
HEADERS = {
    "x-robots-tag": "noindex",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
}
LAYOUT = (
    "body{margin:0 auto;max-width:1160px;padding:24px 16px;background:var(--bench);font-family:system-ui,sans-serif}"
    "h1{font-size:22px;margin:0 0 4px;color:var(--ink)}details>summary{cursor:pointer}.turn{margin-bottom:24px}"
)


@cache
def style() -> str:
    """The app's style sheet, dark where the browser is."""
    css = CSS_PATH.read_text(encoding="utf-8")
    dark = re.search(r"\.dark \{([^}]*)\}", css)
    return f"{css}{LAYOUT}@media (prefers-color-scheme:dark){{:root{{{dark.group(1) if dark else ''}}}}}"


def link(chat: KeptChat) -> str:
    """Where it is read, from the app's own page."""
    return f"shared/{chat.id}"


def drawn(chat: KeptChat, lang: str) -> str:
    """The conversation with its title."""
    view = View(columns_of(chat.run_names), lang, read_only=True)
    system = (chat.conversation.system or "").strip()
    asked = html.folded(say(lang, "set_system"), f'<div class="asked">{html.esc(system)}</div>') if system else ""
    runs_named = html.esc(", ".join(map(title_of, chat.run_names)))
    head = f'<h1>{html.esc(chat.name)}</h1><div class="s muted small">{say(lang, "shared_about", runs=runs_named)}{asked}</div><br>'
    return head + "".join(past_and_now(chat.conversation, view))


@dataclass(frozen=True)
class Drawing:
    """A chat in a language. The conversation of an id stays as it was kept; names are the owner's to change."""

    id: str
    name: str
    titles: tuple[str, ...]
    lang: str
    chat: KeptChat = field(compare=False)


@lru_cache(maxsize=32)
def body_of(drawing: Drawing) -> str:
    return drawn(drawing.chat, drawing.lang)


def shared_page(request: Request) -> Response:
    """Computed in a thread, as no coroutine, and once: comparing the words of answers takes a moment."""
    lang = language(request)
    chat = chat_store.shared(request.path_params["id"])
    body = f'<p class="s">{html.esc(in_words(GONE, lang))}</p>'
    if chat:
        body = body_of(Drawing(chat.id, chat.name, tuple(map(title_of, chat.run_names)), lang, chat))
    title = html.esc(chat.name) if chat else "sftdemo"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{style()}</style>'
    page = f'<!doctype html><html lang="{lang}"><head>{head}</head><body><main>{body}</main></body></html>'
    return HTMLResponse(page, 200 if chat else 404, HEADERS)


ROUTES = [Route("/shared/{id}", shared_page)]
