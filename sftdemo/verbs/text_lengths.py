"""What a check tells of texts that an encoder reads: their tokens, and which are longer than it reads at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftdemo.verbs.sizes import histogram, spread

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.config.train import TrainConfig
    from sftdemo.data import Dataset

MOST_COUNTED = 5_000  # rows, spread over all


def measure(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, config: TrainConfig) -> dict[str, Any]:
    """The same keys as of chat rows; there is no template, and no token is learned. Raises UserError for no encoder."""
    from sftdemo.encoding.label_rows import windows
    from sftdemo.encoding.own_text import own_text
    from sftdemo.model import download, encoders, support

    folder = download.find(config.model, task=config.task)[0]
    support.check(folder / "config.json", config.model, config.task)
    window = encoders.window(folder, tokenizer, config.max_length)
    examples = [example for part in dataset.splits.values() for example in part]
    counted = examples[:: max(1, -(-len(examples) // MOST_COUNTED))]
    parts = [dataset.instruction, *(str(source.get("instruction") or "") for source in dataset.sources)]
    sizes, chunks = [], []
    for example in counted:
        text = own_text(example["messages"][:-1], parts)
        sizes.append(len(tokenizer(text, verbose=False)["input_ids"]))
        chunks.append(len(windows(tokenizer, text, window, config.chunk_overlap)))
    sizes.sort()
    split = sum(count > 1 for count in chunks)
    return {
        "tokens": spread(sizes),
        "supervised_tokens": 0,
        "counted": len(counted),
        "token_histogram": histogram(sizes, window),
        "lengths": {
            **{"max_length": window, "on_long": "chunk", "chunk_overlap": config.chunk_overlap},
            **{"over": split, "dropped": 0, "cut": 0, "split": split, "chunks": sum(n for n in chunks if n > 1)},
        },
        "template": None,
    }
