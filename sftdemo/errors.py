"""The exceptions whose text is shown to the user as it stands: what is wrong, which value, what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass


class UserError(Exception):
    """A fault the user can mend: one line, shown without a traceback. The command line exits with `exit_code`."""

    exit_code = 1


class UsageError(UserError):
    """A wrong flag or setting."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the data. `line` counts from 1; 0 means the file as a whole.

    `whole`: leaving that row out would not mend it; so it is for all of line 0.
    """

    line: int
    field: str
    problem: str
    remedy: str
    file: str = ""
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.line:
            object.__setattr__(self, "whole", True)

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}" if self.line else self.file
        field = f", field {self.field!r}" if self.field else ""
        return f"{place}{field}: {self.problem} {self.remedy}".strip()

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "whole"}


class DataError(UserError):
    """Data with faults, all of them at once in `faults`."""

    def __init__(self, faults: list[Fault], shown: int = 20) -> None:
        self.faults = faults
        lines = [str(fault) for fault in faults[:shown]]
        if len(faults) > shown:
            lines.append(f"… and {len(faults) - shown} more; `python -m sftdemo check` lists them all.")
        super().__init__("\n".join(lines))
