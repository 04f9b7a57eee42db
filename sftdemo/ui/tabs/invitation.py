"""How raters are invited: the link to their page with a button that copies it and a QR code, and what they are to do."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sftdemo import runs
from sftdemo.runs import voting
from sftdemo.ui.access import rights
from sftdemo.ui.access.hosts import hostname, is_loopback
from sftdemo.ui.parts import html
from sftdemo.ui.parts.address import absolute
from sftdemo.ui.texts import say
from sftdemo.votes import Store

RATE_PATH = "rate"
USUAL_SECONDS = 12.0  # a vote, until enough have been timed


def address(run_name: str, root_path: str | None, request: Any) -> str:
    """The address of the raters' page, as the browser reaches the app."""
    return absolute(f"{RATE_PATH}?run={quote(run_name, safe='')}", root_path, request)


def qr_code(text: str) -> str:
    """The text as a QR code, an inline SVG; dark on white in both themes, as cameras want it."""
    import segno

    return str(segno.make(text, error="m").svg_inline(scale=4, border=3, dark="#000", light="#fff", omitsize=True))


def instruction(run: runs.Run, lang: str) -> str:
    """What a rater is to do, how long it takes, and when names are told; "" while there is nothing to vote on."""
    store, evaluation = Store(), voting.open_contest(run)
    pairs = store.pairs(run, evaluation) if evaluation else 0
    if not pairs:
        return ""
    minutes = max(1, round(pairs * (store.seconds_a_vote(run) or USUAL_SECONDS) / 60))
    when = say(lang, "invite_told_each" if voting.tells_each_vote(run) else "invite_told_end")
    count = say(lang, "invite_pairs", n=pairs)
    return say(lang, "invite_instruction", count=count, minutes=minutes, when=when)


def invitation(run: runs.Run, root_path: str | None, request: Any, lang: str) -> str:
    """The link with its button and code, what raters are to do, and where the link leads nowhere, why."""
    url = address(run.name, root_path, request)
    button = (
        f'<button class="small-button" data-copy="{say(lang, "invite_copied")}" data-from=".link">{say(lang, "invite_copy")}'
        "</button>"
    )
    link = f'<a class="link" href="{html.esc(url)}" target="_blank">{html.esc(url)}</a>'
    text = f"<p>{say(lang, 'invite_text')}{say(lang, 'space')}{instruction(run, lang)}</p>"
    if rights.policy().hosts.local and is_loopback(hostname(url.partition("//")[2].partition("/")[0])):
        text += f'<p class="muted small">{say(lang, "invite_local")}</p>'
    picture = f'<div class="qr" role="img" aria-label="{say(lang, "invite_qr")}">{qr_code(url)}</div>'
    return html.sheet(
        f'<div class="invite"><div>{text}<div class="row">{link} {button}</div></div>{picture}</div>',
        say(lang, "invite_title"),
    )
