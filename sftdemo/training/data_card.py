"""The data card of a run: where its rows come from, what they are, and under which licence; the rows themselves aside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sftdemo import files
from sftdemo.runs import SPLITS, Run
from sftdemo.training.model_card import UNKNOWN, Terms, data_name, licence_of_data

COLUMNS = (
    "messages",
    "label",
    "references",
    "tools",
    "weight",
)  # what else a row has tells of the machine it was read on


def data_card(run: Run, terms: Terms, with_rows: bool) -> str:
    """README.md of a data set's repository (`with_rows`), or what stands beside a model whose rows aren't given away."""
    from huggingface_hub import DatasetCardData

    data = run.trained_config()["data"]
    license = terms.data_license or licence_of_data(data.get("source", "")) or UNKNOWN
    columns: Counter[str] = Counter()
    sizes = {}
    for split in SPLITS:
        if rows := run.examples(split):
            sizes[split] = len(rows)
            columns.update(name for row in rows for name in COLUMNS if row.get(name) not in (None, [], ""))
    name = data_name(data.get("source") or UNKNOWN)
    front = DatasetCardData(
        license=license.lower(),
        pretty_name=name,
        tags=["sft"],
        configs=[{"config_name": "default", "data_files": [{"split": s, "path": f"{s}.jsonl"} for s in sizes]}]
        if with_rows and sizes
        else None,
    )
    roles = "; ".join(f"{role} from {column!r}" for role, column in data.get("mapping", {}).items())
    left_out = len(data.get("dropped", [])) + sum(data.get("too_long", {}).values())
    cleaned = ", ".join(f"{step['step']} {step['count']}" for step in data.get("cleaning", []))
    table = "\n".join(
        ["| split | rows |", "| --- | --- |", *(f"| {split} | {rows} |" for split, rows in sizes.items())]
    )
    where = "as JSON lines, one file a split" if with_rows else "not in this repository"
    return f"""---
{front.to_yaml(line_break=chr(10))}
---

# {name}

What [the run {run.name}]({terms.repository or "README.md"}) was trained and measured on: rows {where}.

- **Source**: {name}, read as {data.get("format", UNKNOWN)} ({data["task"]}).
- **SHA-256** of what was read: `{data.get("sha256", UNKNOWN)}`.
- **Licence**: {license}.
- **Columns**: {", ".join(f"`{column}` ({rows} rows)" for column, rows in columns.items()) or UNKNOWN}.\
{f" Made of: {roles}." if roles else ""}
- **Left out**: {left_out} rows.{f" Cleaned: {cleaned}." if cleaned else ""}

{table}
"""


def write_data(run: Run, folder: Path, terms: Terms) -> None:
    """The rows of each split as JSON lines, and their card."""
    for split in SPLITS:
        if rows := run.examples(split):
            files.write_jsonl(
                folder / f"{split}.jsonl", [{key: row[key] for key in COLUMNS if key in row} for row in rows]
            )
    files.write_text(folder / "README.md", data_card(run, terms, with_rows=True))
