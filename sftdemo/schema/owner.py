"""What owner and visitors decide, write and share of a run: keys of the files in its folder that no training writes."""

from __future__ import annotations

from typing import Annotated as Doc
from typing import Literal, TypedDict

from sftdemo.schema.json_types import ALWAYS


class Voting(TypedDict, total=False):
    """voting.json: what the owner decided about votes on the run."""

    evaluation: Doc[str, "the evaluation that is open for votes"]
    systems: Doc[list[str], "the two systems that raters are asked about; none for base and tuned"]
    tell_each_vote: Doc[
        bool, "whether raters are told after each vote which model wrote what, and not at the end alone"
    ]


class Starter(TypedDict):
    """started.json: the visitor of the page who asked for the run, and how long it may train, resumed or not."""

    visitor: Doc[str, "a pseudonym of the browser, who may stop the run", ALWAYS]
    minutes: Doc[float, "of training in all", ALWAYS]
    used: Doc[float, "minutes of them that are over", ALWAYS]


class RunNotes(TypedDict, total=False):
    """notes.json: what the owner wrote about the run. The folder keeps its own name, which links, votes and exports use."""

    display_name: Doc[str, "what the run is called where people read it; without one, the folder's name"]
    notes: Doc[str, "for the owner alone"]
    tags: Doc[list[str], "for the filter of the list"]
    visitors: Doc[
        Literal["shown", "hidden"],
        "whether visitors of the page see the run, where that isn't as usual: the owner's are seen by all, one that a visitor "
        "started by that visitor alone",
    ]


class Push(TypedDict):
    """A repository on the Hub that was made from the run."""

    url: Doc[str, "where it is; empty until it holds the model", ALWAYS]
    commit: Doc[str, "the Hub's id of the last upload", ALWAYS]
    private: Doc[bool, "whether others can't see it", ALWAYS]
    format: Doc[str, "what was pushed: `adapter`, `merged`, `gguf-q8_0`, or `data`", ALWAYS]
    at: Doc[str, "when, in UTC", ALWAYS]


class Pushes(TypedDict, total=False):
    """pushes.json: the repositories on the Hub that were made from the run, which may be pushed to again."""

    repositories: Doc[dict[str, Push], "by id; of a data set `datasets/` and its id"]


class Imported(TypedDict):
    """Where a run that was imported comes from."""

    source: Doc[str, "the name of the folder or file, or the Hub's id", ALWAYS]
    kind: Doc[Literal["run", "adapter", "merged"], "what it was there", ALWAYS]
    revision: Doc[str, "the Hub's commit, or empty", ALWAYS]
    base: Doc[str, "the base that it names itself, or empty", ALWAYS]
    sha256: Doc[dict[str, str], "of each file of weights", ALWAYS]
    at: Doc[str, "when, in UTC", ALWAYS]
