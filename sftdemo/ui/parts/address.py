"""The page's address: the tab, the run, the row and the runs compared that it names, so that links, reload and the browser's Back lead there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.ui import models

MOST_CHARACTERS = 2_000
ROW = "answer"  # the row that is open, counted from 1 as the page counts
# In the browser: what an event takes from the address when it is sent. The run is the session's, which no browser sees.
SEARCH_JS = "() => [location.search]"
RUN_AND_SEARCH_JS = "(run) => [run, location.search]"
TALKS_AND_SEARCH_JS = "(run, talks) => [run, talks, location.search]"
COMPARED_JS = """(names) => {
  const compare = names?.length ? names.join(",") : "";
  if (compare !== (new URLSearchParams(location.search).get("compare") || "")) window.sftdemo.here({compare});
  return [];
}"""
RUN_SHOWN_JS = "(run) => { window.sftdemo.here({run}); return []; }"
ARRIVED_JS = """() => {
  window.sftdemo.arrived = true;
  const tab = new URLSearchParams(location.search).get("tab") || "data";
  window.sftdemo.shown(tab === "data" ? ["arrived"] : ["arrived", "ready"]);
  return [];
}"""
READY_JS = "() => { window.sftdemo.shown(['arrived', 'ready']); return []; }"


def absolute(path: str, root_path: str | None, request: Any) -> str:
    """A path of the app as the browser reaches it; without a request, as in a call from Python, it stays relative."""
    from gradio.route_utils import get_root_url

    asked = getattr(request, "request", None)
    return f"{get_root_url(asked, asked.url.path, root_path)}/{path}" if asked else path


def tab_shown_js(tab: str) -> str:
    """In the browser: the address names this tab from now on."""
    return f"() => {{ window.sftdemo.here({{tab: '{tab}'}}); return []; }}"


@dataclass(frozen=True)
class Address:
    """What `?tab=…&run=…&answer=…&compare=…,…` asks for; "" where it doesn't say."""

    tab: str = ""
    run: str = ""
    row: str = ""  # counted from 0, as in outputs.jsonl
    compare: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Address:
        shown = str(query.get(ROW) or "")[:9]  # older links have row=, counted from 0
        row = str(int(shown) - 1) if shown.isdecimal() else str(query.get("row") or "")
        return cls(str(query.get("tab") or ""), str(query.get("run") or ""), row, str(query.get("compare") or ""))

    @classmethod
    def parse(cls, search: str | None) -> Address:
        """The address whose part from the question mark on is given."""
        return cls.of(dict(parse_qsl((search or "")[:MOST_CHARACTERS].lstrip("?"))))

    def chosen_run(self, otherwise: str) -> tuple[str, Text | None]:
        """The run to choose, and why it isn't the one asked for; no word tells an unknown run from one without a model, but
        on Runs, which lists both kinds."""
        if not self.run:
            return otherwise, None
        with contextlib.suppress(UserError):  # its text names folders and other runs
            run = runs.named(self.run)
            if models.is_ready(run) and not run.damage():
                return run.name, None
        return otherwise, None if self.picked_run() else Text(
            "The address asks for run {name!r}, and there is no model of that name.", name=self.run[:80]
        )

    def picked_run(self) -> str:
        """The run that Runs is asked for, with a model or without; "" for none."""
        if self.tab == "runs" and self.run:
            with contextlib.suppress(UserError):
                return runs.named(self.run).name
        return ""

    def compared_runs(self) -> list[str]:
        """The names of the runs to compare, as far as there are such runs."""
        names = []
        for name in self.compare[:MOST_CHARACTERS].split(",") if self.compare else ():
            with contextlib.suppress(UserError):
                names.append(runs.named(name).name)
        return names
