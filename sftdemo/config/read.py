"""The settings by which files become examples, each declared once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sftdemo.config.settings import Settings, setting
from sftdemo.errors import Text

CLEANING = ("html", "whitespace", "personal", "duplicates", "near_duplicates", "leaks")
LARGEST_SEED = 2**32 - 1
OWN_TEXTS = "{}"  # an instruction that shows the row's own texts alone


def _is_text_encoding(name: str) -> bool:
    """Whether bytes of files can be read in it; Python has codecs for other things, too."""
    try:
        return isinstance(b"".decode(name), str) and isinstance(b"a\n".decode(name, "replace"), str)
    except (LookupError, ValueError):
        return False


@dataclass(frozen=True)
class FileConfig(Settings):
    """How the bytes of a file become rows, where that isn't found rightly by itself."""

    encoding: str | None = setting(
        None,
        "The encoding of text files, as cp1252 or euc-kr; default: detected, and reported where it isn't UTF-8.",
        group="Data",
    )
    header: str = setting(
        "auto",
        "A table's header: auto finds it, yes takes the first row, no means there is none, a number names its row.",
        group="Data",
    )
    sheet: str | None = setting(
        None, "A workbook's sheet, by name or number; default: the first with rows.", group="Data"
    )

    def problems(self) -> list[Text]:
        problems = super().problems()
        if isinstance(self.encoding, str) and not _is_text_encoding(self.encoding):
            problems.append(
                Text(
                    "encoding is {value!r}, which isn't known; give one as utf-8, cp1252, euc-kr or shift-jis.",
                    value=self.encoding,
                )
            )
        if isinstance(self.header, str) and not re.fullmatch("auto|yes|no|[1-9][0-9]{0,8}", self.header):
            problems.append(
                Text("header is {value!r}; give auto, yes, no, or the number of the header's row.", value=self.header)
            )
        return problems


@dataclass(frozen=True)
class ReadConfig(FileConfig):
    """How a file is turned into examples."""

    data: str = setting(
        "",
        "A file, a folder, the name of a sample set, or a Hub id (owner/name:subset:split); several with their weights as "
        "'support_tickets*2 + house_style'.",
        group="Data",
    )
    format: str = setting(
        "auto",
        "The layout of a row; auto finds it.",
        group="Data",
        choices=(
            "auto",
            "messages",
            "sharegpt",
            "prompt_completion",
            "instruction",
            "text_label",
            "source_target",
            "preference",
            "summary",
            "extraction",
        ),
    )
    edits: str | None = setting(
        None,
        "A file of edits, JSONL: rows that are changed, left out or added as soon as the data is read; the data stays as it is.",
        group="Data",
    )
    columns: str | None = setting(
        None, "Column names where they differ, as role=column pairs: text=tweet,label=mood.", group="Data", high=20_000
    )
    instruction: str | None = setting(
        None,
        "What the user asks, with columns in braces: 'Translate to French: {source}'; {} is the row's own texts.",
        group="Data",
        high=20_000,
    )
    system: str | None = setting(
        None, "A system prompt put before every example that has none.", group="Data", high=20_000
    )
    on_fault: str = setting(
        "stop",
        "Rows at fault: stop lists them and trains nothing; drop leaves them out and lists them; fix repairs what "
        "it can and leaves out the rest.",
        group="Data",
        choices=("stop", "drop", "fix"),
    )
    clean: str | None = setting(
        None,
        f"What to clean, as a list: {', '.join(CLEANING)}.",
        group="Data",
    )
    min_characters: int | None = setting(
        None, "Leave out rows shorter than this, all turns together.", group="Data", low=1
    )
    max_characters: int | None = setting(
        None, "Leave out rows longer than this, all turns together.", group="Data", low=1
    )
    balance: str = setting(
        "none",
        "Labels of unequal size, in training: over repeats rows of small ones, under leaves out rows of large ones, "
        "weights makes rows of small ones count for more.",
        group="Data",
        choices=("none", "over", "under", "weights"),
    )
    validation_size: float | None = setting(
        None, "Validation rows, where the data has none: a share below 1, or a count.", group="Data", low=0
    )
    test_size: float | None = setting(
        None, "Test rows, where the data has none: a share below 1, or a count.", group="Data", low=0
    )
    seed: int = setting(
        42,
        "Decides the split, the rows taken, their order and the new weights.",
        group="Data",
        low=0,
        high=LARGEST_SEED,
    )

    def problems(self) -> list[Text]:
        problems = super().problems()
        if isinstance(self.clean, str) and (unknown := sorted(set(self.cleaning) - set(CLEANING))):
            problems.append(
                Text("clean names {names}; the steps are: {known}.", names=list(map(repr, unknown)), known=CLEANING)
            )
        least, most = self.min_characters, self.max_characters
        if isinstance(least, int) and isinstance(most, int) and least > most:
            problems.append(
                Text(
                    "min_characters is {least}, more than max_characters, {most}; no row could stay.",
                    least=least,
                    most=most,
                )
            )
        for name in ("validation_size", "test_size"):
            value = getattr(self, name)
            if isinstance(value, int | float) and (value == 0 or (value > 1 and value != int(value))):
                problems.append(
                    Text("{name} is {value!r}; give a share below 1, or a count of rows.", name=Text(name), value=value)
                )
        return problems

    @property
    def cleaning(self) -> list[str]:
        """The steps named in `clean`."""
        return [name.strip() for name in (self.clean or "").split(",") if name.strip()]
