"""Small pieces of HTML that every tab is made of; everything from outside passes through `esc`."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sftdemo.data import limits
from sftdemo.data.types import turn_text
from sftdemo.evaluation.words import HAN_KANA, NO_SPACES, pattern
from sftdemo.ui.access import private
from sftdemo.ui.parts import word_diff

_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n){4,}")
_ALL_MARKED = re.compile("(<mark>[^<]*</mark>)*")
# gr.HTML reads ${…} and {{…}} as templates, so text from data and models must not contain them.
_TEMPLATE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})


def esc(value: object) -> str:
    """Text made safe for HTML and for Gradio's templates."""
    return html.escape(str(value)).translate(_TEMPLATE)


def block(content: str, classes: str = "") -> str:
    return f'<div class="s {classes}">{content}</div>'


def sheet(content: str, title: str = "") -> str:
    return block((f"<h3>{esc(title)}</h3>" if title else "") + content, "sheet")


def empty(title: str, text: str, tab: str = "", button: str = "") -> str:
    """The state of a screen that waits for something: what, how to get it, and a button to the tab where it is got."""
    way = f'<p><button class="go" data-go="{esc(tab)}">{esc(button)}</button></p>' if tab else ""
    return block(f"<b>{esc(title)}</b>{esc(text)}{way}", "state empty")


def fault(text: str) -> str:
    """What went wrong, where it went wrong, as far as the visitor may read it; nothing for no fault."""
    return f'<div class="s state fault" role="alert">{esc(private.shown(text))}</div>' if text else ""


def fault_in(texts: Mapping[str, str]) -> str:
    """What went wrong in each of the page's languages, of which the style sheet shows the one that is spoken: a fault is no
    state of the page that could be drawn anew when the language is switched."""
    said = "".join(f'<span lang="{esc(lang)}">{esc(private.shown(text))}</span>' for lang, text in texts.items())
    return f'<div class="s state fault" role="alert">{said}</div>'


def chip(text: str, kind: str = "plain") -> str:
    return f'<span class="chip {kind}">{esc(text)}</span>'


def download_link(path: Path, text: str) -> str:
    """A link that saves a file as it lies here; Gradio's own button would copy it first, and a model is large."""
    size = limits.size(path.stat().st_size)
    return (
        f'<a class="download" href="gradio_api/file={esc(quote(str(path.resolve())))}" download="{esc(path.name)}">'
        f"{esc(text)} ({size})</a>"
    )


def pick_button(pick: str, text: str) -> str:
    """A small button inside a `picker`; a click on it picks `pick`."""
    return f'<button class="small-button" data-pick="{esc(pick)}">{esc(text)}</button>'


def cut(text: str, length: int) -> str:
    """The text on one line, shortened to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def cut_name(name: str, length: int) -> str:
    """The name of a run shortened to `length` characters in its middle: such names differ in their ends."""
    if len(name) <= length:
        return name
    end = (length - 1) * 3 // 5
    return f"{name[: length - 1 - end]}…{name[-end:]}"


def cut_names(names: Sequence[str], length: int) -> list[str]:
    """Names that stand together, each as `cut_name` cuts it; those that would look alike keep the place where they differ."""
    alike: dict[str, set[str]] = {}
    for name in names:
        alike.setdefault(cut_name(name, length), set()).add(name)
    return [_told_apart(name, alike[cut_name(name, length)], length) for name in names]


def _told_apart(name: str, alike: Collection[str], length: int) -> str:
    """The name's beginning, then it from where the others that are cut alike begin to differ, as far as there is room."""
    if len(alike) < 2:
        return cut_name(name, length)
    kept = (length - 1) // 3
    # A little before it stays, so that a part of a number isn't taken for another.
    start = max(len(commonprefix(list(alike))) - 3, kept + 1)  # noqa: RUF071 (of names, not of paths)
    return name[:kept] + "…" + cut(name[start:], length - kept - 1)


def last_paragraph(text: str) -> str:
    """What is particular to a row: the instruction, which all rows share, stands before it."""
    return text.strip().rsplit("\n\n", 1)[-1]


def bubbles(messages: Iterable[Mapping[str, Any]]) -> str:
    """A conversation as chat bubbles; the assistant's side, which is learned, in the accent."""
    rows = (f'<div class="says {esc(m["role"])}">{esc(turn_text(m))}</div>' for m in messages)
    return f'<div class="bubbles">{"".join(rows)}</div>'


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """Numbers set large with their names below; pairs of (number, name)."""
    cells = (
        f'<div class="figure"><div class="n">{esc(n)}</div><div class="l">{esc(name)}</div></div>' for n, name in pairs
    )
    return f'<div class="figures">{"".join(cells)}</div>'


def track(share: float) -> str:
    return f'<div class="track"><i style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></i></div>'


def table(headers: Iterable[str], rows: Iterable[tuple[str | None, Iterable[str], bool]]) -> str:
    """A table of (pick value or None, cells as HTML, selected) rows; a row with a value can be picked."""
    body = []
    for pick, cells, selected in rows:
        picking = (
            f' data-pick="{esc(pick)}" tabindex="0" aria-selected="{str(selected).lower()}"' if pick is not None else ""
        )
        body.append(f"<tr{picking}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{esc(name)}</th>" for name in headers)
    return f'<div class="s scroll rows" tabindex="0"><table class="t"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def folded(title: str, content: str, open: bool = False, kind: str = "") -> str:
    """What can be opened by its title."""
    return f'<details class="fold {kind}"{" open" if open else ""}><summary>{esc(title)}</summary>{content}</details>'


def card(pick: str, content: str, pressed: bool) -> str:
    return f'<button class="card" data-pick="{esc(pick)}" aria-pressed="{str(pressed).lower()}">{content}</button>'


def words(text: str) -> list[str]:
    """Words with the space after them; characters of writing without spaces each alone."""
    pieces: list[str] = pattern(rf"(?:[{HAN_KANA}]|(?=\p{{Line_Break=SA}})\X)\s*|[^\s{NO_SPACES}]+\s*|\s+").findall(
        text
    )
    return pieces


def differences(old: str, new: str) -> tuple[str, str]:
    """Both texts as HTML with the words that only one has marked: del in the old, ins in the new."""
    a, b = words(old), words(new)
    left, right = [], []
    for tag, a0, a1, b0, b1 in word_diff.pieces([w.strip() for w in a], [w.strip() for w in b]):
        gone, came = esc("".join(a[a0:a1])), esc("".join(b[b0:b1]))
        left.append(gone if tag == "equal" or not gone else f"<del>{gone}</del>")
        right.append(came if tag == "equal" or not came else f"<ins>{came}</ins>")
    return "".join(left), "".join(right)


def marked(first: str, second: str) -> tuple[str, str]:
    """Two answers as HTML, in each the words marked that the other doesn't have: neither was there first, so nothing is struck
    out. Answers without a word in common have no marks."""
    pair = first_marked, second_marked = tuple(map(_as_marks, differences(first, second)))
    if all(map(_ALL_MARKED.fullmatch, pair)):
        return esc(first), esc(second)
    return first_marked, second_marked


def _as_marks(text: str) -> str:
    """All that was written is escaped before, so that the tags are those of `differences`."""
    for tag in ("ins", "del"):
        text = text.replace(f"<{tag}>", "<mark>").replace(f"</{tag}>", "</mark>")
    return text


def blank_lines(drawn: str) -> str:
    """An answer's HTML with three and more blank lines in a row folded to one that says how many: the text stays as it is."""
    return _BLANK_LINES.sub(
        lambda found: f'<span class="blanks" data-n="{found[0].count(chr(10))}">{found[0]}</span>', drawn
    )


def against(reference: str, answer: str) -> str:
    """An answer as its reference corrected: what the reference has and it lacks struck out, what it adds marked."""
    a, b = words(reference), words(answer)
    pieces = []
    for tag, a0, a1, b0, b1 in word_diff.pieces([w.strip() for w in a], [w.strip() for w in b]):
        gone, came = esc("".join(a[a0:a1])), esc("".join(b[b0:b1]))
        pieces.append(
            came if tag == "equal" else (f"<del>{gone}</del>" if gone else "") + (f"<ins>{came}</ins>" if came else "")
        )
    return "".join(pieces)


def tokens(answer: Iterable[Mapping[str, Any]]) -> str:
    """An answer's tokens, the more likely the stronger their colour; each opens its alternatives on hover, tap or Tab."""
    spans = []
    for token in answer:
        alternatives = "".join(
            f'<span class="alt{" this" if text == token["token"] else ""}"><i>{esc(visible(text))}</i><b>{100 * share:.1f} %</b></span>'
            for text, share in token["alternatives"]
        )
        share = float(token["probability"])
        kind = "sure" if share >= 0.5 else "unsure" if share >= 0.1 else "surprised"
        spans.append(
            f'<span class="tok {kind}" tabindex="0" style="--p:{max(share, 0.02):.3f}">{esc(visible(token["token"]))}'
            f'<span class="alts"><b>{100 * share:.1f} %</b>{alternatives}</span></span>'
        )
    return f'<div class="toks">{"".join(spans)}</div>'


def visible(token: str) -> str:
    """A token with its white space in sight."""
    return (
        token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") if token.strip() != token or not token else token
    )
