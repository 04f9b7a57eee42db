"""What the training of an encoder that labels texts needs, checked before anything is written: texts in windows, labels, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftdemo.encoding.own_text import own_text
from sftdemo.errors import Text, UserError
from sftdemo.log import Reporter
from sftdemo.training.prepare import Prepared

if TYPE_CHECKING:
    from torch import Tensor

    from sftdemo.data import Dataset, Example
    from sftdemo.encoding.label_rows import LabelRows
    from sftdemo.model.memory_estimate import Estimate

LEAST_LABELS = 2


def templates_of(dataset: Dataset) -> list[str]:
    """The instructions that the rows of a data set were written with, whose words an encoder doesn't read."""
    parts = [dataset.instruction, *(str(source.get("instruction") or "") for source in dataset.sources)]
    return list(dict.fromkeys(part for part in parts if part))


class PreparedLabels(Prepared):
    """Of texts with labels: `labels` by their numbers, `window` tokens at once, `templates` whose words aren't read."""

    labels: list[str]
    several: bool  # may apply to a text
    window: int
    frozen: list[Any]  # what is fitted on the encoder as it is, once for all settings

    def check_parts(self) -> None:
        from sftdemo.model import encoders

        encoders.check_targets(self.base, self.config)

    @property
    def templates(self) -> list[str]:
        return templates_of(self.dataset)

    def encode(self, reporter: Reporter) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
        from sftdemo.model import encoders

        taken, templates, self.frozen = self.taken(), self.templates, []
        self.name_labels(taken)
        self.window = encoders.window(self.base, self.tokenizer, self.config.max_length)
        rows, lengths = {}, {}
        for split, examples in taken.items():
            rows[split] = encoded = self.new_rows()
            windows = [self.add(encoded, own_text(row["messages"][:-1], templates), row) for row in examples]
            long = [count for count in windows if count > 1]
            lengths[split] = {"over": len(long), "dropped": 0, "cut": 0, "split": len(long), "chunks": sum(long)}
            if long:
                reporter.info(self.in_chunks(split, len(long), sum(long)))
        return rows, lengths

    def in_chunks(self, split: str, n: int, chunks: int) -> Text:
        """What is said of a split's long texts."""
        return Text(
            "In {split}: {n} texts are longer than the {window} tokens that the model reads at once; they are read in "
            "{chunks} chunks, whose probabilities are averaged.",
            split=split,
            n=n,
            window=self.window,
            chunks=chunks,
        )

    def name_labels(self, taken: Mapping[str, Sequence[Example]]) -> None:
        """Find the `labels`; raise UserError where these rows have none to learn."""
        config, dataset = self.config, self.dataset
        every = [example for part in dataset.splits.values() for example in part]
        self.several = all("labels" in example for example in every)
        self.labels = sorted(dataset.labels)
        if self.several:
            self.labels = sorted({label for example in every for label in example["labels"]})
            return
        if len(self.labels) < LEAST_LABELS or sum(dataset.labels.values()) < dataset.examples:
            raise UserError(
                "task {task} needs a label in every row, and two or more of them; these rows have the task {kind}.",
                task=config.task,
                kind=dataset.task,
            )
        learned = {example["label"] for example in taken["train"]}
        if len(learned) < LEAST_LABELS:
            raise UserError(
                "Of {n} training rows each has the label {label!r}, and task {task} learns two or more; take more rows, or split "
                "them otherwise.",
                n=len(taken["train"]),
                label=next(iter(learned), ""),
                task=config.task,
            )

    def new_rows(self) -> Any:
        from sftdemo.encoding.label_rows import LabelRows

        return LabelRows()

    def add(self, rows: Any, text: str, example: Example) -> int:
        """Add a row's windows, and return how many these are."""
        from sftdemo.encoding.label_rows import windows

        parts = windows(self.tokenizer, text, self.window, self.config.chunk_overlap)
        labels = example["labels"] if self.several else [example["label"]]
        rows.add(parts, [self.labels.index(label) for label in labels], float(example.get("weight", 1.0)))
        return len(parts)

    def targets(self, split: str) -> LabelRows:
        """What a logistic head learns of a split: a label a row."""
        rows: LabelRows = self.rows[split]
        return rows

    def features(self, encoder: Any, split: str) -> Tensor:
        """What the encoder makes of each of these rows: [rows, size]."""
        from sftdemo.model import frozen_head

        ids, pad = [row.ids for row in self.rows[split]], self.tokenizer.pad_token_id or 0
        return frozen_head.features(encoder, ids, pad, self.config.pooling)

    def estimate_memory(self, reporter: Reporter) -> Estimate:
        from sftdemo.model.encoder_memory import check_training

        rows = self.rows["train"]
        memory, note = check_training(self.base, self.config, max(len(row.ids) for row in rows))
        reporter.info(note)
        return memory
