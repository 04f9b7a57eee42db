"""The report as a file: which runs, in which language, and the frame around what is said of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sftdemo import __version__, files, runs
from sftdemo.errors import UsageError, UserError
from sftdemo.runs import Run
from sftdemo.ui.parts import html
from sftdemo.ui.parts.style import CSS_PATH
from sftdemo.ui.report import comparison, of_run
from sftdemo.ui.texts import say

MOST_RUNS = 8
LOCALES = {"en": "en", "zh": "zh-CN"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
REPORT_CSS = Path(__file__).with_name("report.css")


def report(run: str | Run | Sequence[str | Run], to: str | Path, language: str = "en") -> Path:
    """Write what is known of a run, or of several compared, to one HTML file that needs no network; return its path.

    `language` is "en" or "zh". A file of that name is replaced. Raises UserError for a name that doesn't end in .html, an
    unknown or damaged run, and more than 8 runs.
    """
    path = Path(to)
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise UserError("{path} can't be a report; give a file name that ends in .html.", path=str(to))
    if language not in LOCALES:
        raise UsageError(
            "{name} is {value!r}; choose one of: {names}.", name="language", value=language, names=tuple(LOCALES)
        )
    asked = [run] if isinstance(run, str | Run) else run
    files.write_text(path, document([each if isinstance(each, Run) else runs.find(each) for each in asked], language))
    return path


def document(chosen: Sequence[Run], lang: str) -> str:
    """The whole HTML document; each run once."""
    chosen = list({files.real(run.path): run for run in chosen}.values())
    if not chosen:
        raise UserError("No run is chosen; fine-tune one first, or choose one under Runs.")
    if len(chosen) > MOST_RUNS:
        raise UserError("{n} runs are chosen; compare at most {most}.", n=len(chosen), most=MOST_RUNS)
    title = " · ".join(map(runs.title, chosen))
    body = of_run.sections(chosen[0], lang) if len(chosen) == 1 else comparison.sections(chosen, lang)
    foot = say(lang, "report_foot", version=__version__)
    return f"""<!doctype html>
<html lang="{LOCALES[lang]}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{html.esc(title)}</title>
<style>
{style_sheet()}</style>
</head>
<body>
<main class="s">
<h1>{html.esc(title)}</h1>
{body}
<footer class="muted small">{foot}</footer>
</main>
</body>
</html>
"""


def style_sheet() -> str:
    """The page's own style sheet, dark where the reader's system is, and what is particular to a report."""
    page = CSS_PATH.read_text(encoding="utf-8")
    dark = re.search(r"^\.dark (\{.*?^\})", page, re.S | re.M)
    assert dark, "style.css has no colours for the dark"
    own = REPORT_CSS.read_text(encoding="utf-8")
    return f"{page}\n@media screen and (prefers-color-scheme: dark) {{ :root {dark[1]} }}\n{own}"
