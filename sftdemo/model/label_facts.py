"""What a classifier's folder says beside its weights: the labels, how texts are read, and the temperatures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.model import validation

FILE = "classifier.json"


@dataclass(frozen=True)
class LabelFacts:
    """`several` labels may apply to a text. Texts are read in windows of so many tokens, neighbours sharing `overlap`;
    `templates` are those whose words are left out of them. `temperatures` is of "base" and "tuned"."""

    labels: list[str]
    several: bool
    window: int
    overlap: int
    pooling: str
    templates: list[str]
    temperatures: dict[str, float]

    @property
    def entity_kinds(self) -> list[str]:
        """The kinds of entities, where labels are tags of words: O, B-KIND and I-KIND."""
        return [label[2:] for label in self.labels if label.startswith("B-")]

    def save(self, folder: Path) -> None:
        files.write_json(folder / FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError where the file is missing, or isn't as it was written."""
        values: dict[str, Any] = validation.read_json(folder / FILE, validation.CONFIG_BYTES, folder.parent.name)
        try:
            facts = cls(**values)
            sound = (
                all(isinstance(label, str) for label in [*facts.labels, *facts.templates])
                and type(facts.window) is int
                and facts.window > 0
                and type(facts.overlap) is int
                and all(isinstance(facts.temperatures[side], float) for side in ("base", "tuned"))
            )
        except (TypeError, KeyError):
            sound = False
        if not sound:
            raise UserError("The {file} of {model} is damaged; train anew.", file=FILE, model=folder.parent.name)
        return facts
