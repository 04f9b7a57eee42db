"""What a training or a loaded run will take in memory, and whether it fits.

The peak is counted from what is really there at once: weights, what is trained with its gradients and Adam's two moments,
the tensors that a step keeps for its backward pass, and the logits. No weight is read, and torch isn't needed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo.config.train import TrainConfig
from sftdemo.encoding.rows import common_prefix
from sftdemo.errors import Text, UserError
from sftdemo.model import selection
from sftdemo.model.sizes import Model as Model
from sftdemo.model.sizes import parameters as parameters
from sftdemo.system import resources

if TYPE_CHECKING:
    from sftdemo.encoding.rows import Encoded

Change = dict[str, Any]

ONE_MOMENT = ("sgd", "adafactor", "adamw_8bit", "paged_adamw_8bit")  # as large as the weights at most; Adam has two
GIB = 2**30
# Resident once torch, transformers and peft are imported and a model's classes are loaded (Linux, CPU build of torch 2.13).
IMPORTS = 590 * 2**20
# On a GPU the libraries' room for matrix products: 32 MiB for each of the two threads that make them (H200, torch 2.11).
WORKSPACES = 64 * 2**20
# The heap grows beyond what lives in it. Measured with glibc 2.36, resident over kept, from 8 rows of 100 tokens to 4 of 900:
# LoRA 1.2 to 1.35, on quantized weights 1.5 to 1.75, full tuning 1.15 to 1.55. Blocks of 32 MiB and more are mapped, and freed, alone.
HEAP_SLACK = {"lora": 1.3, "quantized": 1.6, "full": 1.35, "frozen": 1.0}
# With bfloat16 on a processor that has units for it; oneDNN's own room is in it. (135M, batches of 450 to 830 tokens: LoRA 1.75
# to 2.3, the more the longer it trains, quantized 1.8 to 2.2.)
HEAP_SLACK_16 = {"lora": 2.0, "quantized": 1.95, "full": 1.35, "frozen": 1.0}
MAPPED_ALONE = 32 * 2**20
# With checkpointing what is freed lies in pieces between what is kept, as much as a layer for so many: 135M peaked at 1.39,
# 1.66 and 3.22 GB (2 and 8 rows of about 100 tokens, 4 of 800), where 1.35, 1.60 and 3.57 are reckoned.
LAYERS_IN_PIECES = 4
LOGITS_AT_ONCE = 2**24  # more are computed in chunks
LORA_TARGETS = 7  # linear layers of a decoder layer: q, k, v, o, gate, up, down
DRAWS = 200  # batches drawn to find the largest
MOST_WAYS = 4  # so many are offered where a training doesn't fit


@dataclass(frozen=True)
class LengthStatistics:
    """How many tokens of each training row are read and how many learned, and with how many all rows begin alike."""

    lengths: Sequence[int]
    learned: Sequence[int]
    prefix: int = 0

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> LengthStatistics:
        # As in packing: what the first and the last in order share, all share, and the first learned token isn't in it.
        prefix = min(
            common_prefix([min(row.ids for row in rows), max(row.ids for row in rows)]),
            *(row.prompt_length - 1 for row in rows),
        )
        return cls([len(row.inputs) for row in rows], [sum(row.supervised) for row in rows], prefix)

    def up_to(self, longest: int) -> LengthStatistics:
        """Only the rows of at most so many tokens; the last isn't read."""
        kept = [pair for pair in zip(self.lengths, self.learned, strict=True) if pair[0] < longest]
        return LengthStatistics([length for length, _ in kept], [learned for _, learned in kept], self.prefix)

    def batches(self, config: TrainConfig) -> Iterator[Batch]:
        """As many random batches as the run has, or enough to meet its largest."""
        draw, size = random.Random(config.seed), min(config.batch_size, len(self.lengths))
        for _ in range(math.ceil(min(DRAWS, config.rows_seen(len(self.lengths)) / size))):
            chosen = draw.sample(range(len(self.lengths)), size)
            learned = sum(self.learned[row] for row in chosen)
            if config.task == "seq2seq":
                learned = size * max(self.learned[row] for row in chosen)
            if config.task == "seq2seq" or not config.packing:
                yield Batch([(max(self.lengths[row] for row in chosen), 0)] * size, learned)
                continue
            prefix = self.prefix if size > 1 and not config.neftune_alpha else 0
            spans = [(self.lengths[row] - prefix, prefix) for row in chosen]
            yield Batch([(prefix, 0), *spans] if prefix else spans, learned)


@dataclass(frozen=True)
class Batch:
    """A packed batch: each span's own tokens and the prefix tokens it sees beside them; how many tokens are learned."""

    spans: list[tuple[int, int]]
    learned: int

    @property
    def tokens(self) -> int:
        return sum(own for own, _ in self.spans)


@dataclass(frozen=True)
class Beside:
    """What a training loads beside its own model: a teacher, in its own quantization, or first in float32 where the student
    is cut out of it; once it is done, the base in float32, to merge an adapter into."""

    teacher: Model | None = None
    quantization: str = "none"
    merges: bool = False
    cut: bool = False

    def weights(self, size: int) -> int:
        """Bytes of the teacher."""
        return self.teacher.weights(size, self.quantization) if self.teacher else 0

    def loading(self, size: int, gpu: bool) -> int:
        """Bytes at the peak of loading the teacher, which is in float32 where an adapter is merged into it."""
        if self.teacher is None:
            return 0
        merged = loading(self.teacher, 4, gpu=gpu)
        if self.quantization == "none":
            return merged
        quantized = loading(self.teacher, size, self.quantization, gpu)
        return max(quantized, merged) if self.cut else quantized


ALONE = Beside()


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak, and its parts."""

    base: int
    weights: int
    optimizer: int  # gradients and moments of what is trained, and LoRA's own weights
    activations: int
    logits: int
    peak: int


def kept_by_layer(model: Model, config: TrainConfig, batch: Batch, size: int, gpu: bool = False) -> list[int]:
    """The bytes of each tensor that a decoder layer keeps for its backward pass, `size` bytes a number.

    Held to autograd's own saved tensors by tests/test_memory.py.
    """
    lora, queries, keys = config.method == "lora", model.heads * model.head, model.key_heads * model.head
    plain = lora and not config.lora_dropout and not config.dora and config.quantization == "none"
    inputs = [model.hidden, queries, model.hidden, model.wide]  # of q k v, of o, of gate and up, of down
    # With dropout each LoRA input is a tensor of its own, beside its mask; a cast makes one for each linear layer too.
    alone = [model.hidden] * 5 + [queries, model.wide]
    if lora and config.lora_dropout:
        held = [(width, 4) for width in alone * 2]
    elif size < 4 and not plain:
        held = [(width, 4 if lora else size) for width in alone]
    else:
        held = [(width, size) for width in inputs[: 3 if plain else 4]]  # plain LoRA makes down's input again
    # A norm keeps its input; trained, it works in float32 and keeps its result too.
    held += [(model.hidden, size)] * 2 if lora else [(model.hidden, 4)] * 4
    held += [(model.wide, size)] * (2 if plain else 3)  # gate, up, and the activation between them
    held += [(queries, size), (keys, size), (keys, size)]
    if config.dora:  # each linear layer's output, before and after its size is changed
        held += [(width, 4) for width in [queries, keys, keys, model.hidden, model.wide, model.wide, model.hidden] * 3]
    if lora:
        held += [(config.lora_r, 4)] * LORA_TARGETS
    # Attention keeps its weights, and the keys and values that stand behind a copy of the prefix. FlashAttention keeps only
    # the sums of its weights, in float32, and a copy of all keys and values.
    if gpu and size == 2:
        attention = [4 * model.heads * batch.tokens, *(2 * keys * (own + seen) * size for own, seen in batch.spans)]
    else:
        spans = [(batch.tokens, 0)] if gpu else batch.spans
        attention = [model.heads * own * (own + seen) * size for own, seen in spans]
        attention += [2 * keys * (own + seen) * size for own, seen in spans if seen]
    return [batch.tokens * width * number for width, number in held] + attention


def heap_slack(config: TrainConfig, size: int) -> float:
    """How many times what lives in it the heap of a training takes that computes in numbers of `size` bytes."""
    slack = HEAP_SLACK if size == 4 else HEAP_SLACK_16
    return slack["quantized" if config.quantization != "none" else config.method]


def estimate(
    model: Model,
    config: TrainConfig,
    rows: LengthStatistics,
    size: int,
    gpu: bool = False,
    base: int | None = None,
    beside: Beside = ALONE,
) -> Estimate:
    """The peak of a training that computes in numbers of `size` bytes: host memory, or on a GPU its own.

    `base` is what the process has before a model is loaded; default: what the imports take.
    """
    rows = rows.up_to(config.max_length)
    full = config.method == "full"
    base = WORKSPACES if gpu else IMPORTS if base is None else base

    slack = heap_slack(config, size)

    def heap(block: int) -> float:
        return block * (slack if not gpu and block < MAPPED_ALONE else 1)

    activations, logits, chosen = 0.0, 0.0, selection.in_files(config, model.sizes)
    layers_kept = selection.layers_kept(chosen, model.layers)
    for batch in rows.batches(config):
        layer = sum(map(heap, kept_by_layer(model, config, batch, size, gpu)))
        once = heap(batch.tokens * model.hidden * size) if config.gradient_checkpointing else layer
        # One layer more: while its gradient is computed, about as much stands beside what it kept.
        layers_beside = 1
        if config.gradient_checkpointing:
            layers_beside = 2 + (0 if gpu else model.layers // LAYERS_IN_PIECES)
        activations = max(activations, layers_kept * once + layers_beside * layer)
        if beside.teacher:  # asked first, a layer at a time
            activations = max(activations, sum(map(heap, kept_by_layer(beside.teacher, config, batch, size, gpu))))
        # In float32, and in 16 bits before and after; a decoder's beside an encoder come whole, with their gradient.
        at_once = batch.learned * model.vocabulary
        if config.task == "seq2seq":
            logits = max(logits, 12.0 * at_once)
            continue
        logits = max(logits, (4.0 if size == 4 else 8.0) * min(at_once, LOGITS_AT_ONCE))
    learns_head = full and selection.holds_head(chosen)
    if saved := selection.saved_in_files(config, model.sizes):
        learns_head = selection.holds_head(saved)
    if learns_head:  # its gradient, made with the loss, and once more where it is scaled
        logits += 8 * model.vocabulary * model.hidden
    own = model.weights(4 if full else size, config.quantization)
    weights = own + beside.weights(size)
    if full and size < 4:  # autocast's copies of the weights
        activations += model.parameters * size
    # Moments come with the first step, gradients stay from one pass to the next only where they are gathered.
    trained = 4 * model.trained(config)
    passes = config.rows_seen(len(rows.lengths)) / config.batch_size
    moments = (1 if config.optimizer in ONE_MOMENT else 2) * trained
    held = (0 if full else trained) + (moments if passes > config.gradient_accumulation else 0)
    gathered = trained if config.gradient_accumulation > 1 else 0
    optimizer = moments + (1 if full else 2) * trained
    peak = base + weights + max(optimizer, held + gathered + activations + logits)
    peak = max(peak, base + loading(model, 4 if full else size, config.quantization, gpu))
    peak = max(peak, base + own + beside.loading(size, gpu))
    if beside.merges:
        peak = max(peak, base + weights + 4 * model.parameters)
    return Estimate(base, weights, optimizer, round(activations), round(logits), round(peak))


def loading(model: Model, size: int, quantization: str = "none", gpu: bool = False) -> int:
    """Bytes at the peak of loading the weights: a file is mapped; numbers of another kind stand beside it."""
    weights = model.weights(size, quantization)
    if gpu or (quantization == "none" and abs(model.file_bytes - weights) < weights // 100):
        return weights
    # Threads read the layers ahead of the one that quantizes, at worst all of them.
    return model.file_bytes + weights + (model.linear * size if quantization != "none" else 0)


def gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


@dataclass(frozen=True)
class FitReport:
    """An estimate beside the bytes it may take; `ways` are the changes with which it fits, where it doesn't."""

    estimate: Estimate
    room: float
    limited: bool  # by the setting memory_limit, not by what is free
    ways: list[str]

    @property
    def fits(self) -> bool:
        return self.estimate.peak <= self.room


def judge(
    model: Model, config: TrainConfig, rows: LengthStatistics, size: int, own: int = 0, beside: Beside = ALONE
) -> FitReport:
    """Whether a training fits; `own` is what its process holds already, and may go on using."""
    gpu = resources.on_gpu()
    base = max(IMPORTS, own)
    limit = config.memory_limit
    room = limit * GIB if limit is not None else resources.free() + (0 if gpu else own)
    needed = estimate(model, config, rows, size, gpu, base, beside)
    ways = []
    if needed.peak > room:
        for change in smaller(model, config, rows, size, gpu, base, room, beside):
            settings = ", ".join(name if value is True else f"{name} {value}" for name, value in change.items())
            peak = estimate(model, replace(config, **change), rows, size, gpu, base, beside).peak
            ways.append(f"{settings} ({gib(peak)})")
    return FitReport(needed, room, limit is not None, ways)


def check_training(
    model: Model, config: TrainConfig, rows: LengthStatistics, size: int, beside: Beside = ALONE
) -> tuple[Estimate, str]:
    """The estimate and a sentence about it; raises UserError with what would fit where the training doesn't."""
    report = judge(model, config, rows, size, resources.resident(), beside)
    peak, room = gib(report.estimate.peak), gib(report.room)
    bound = Text("{room} is the limit", room=room) if report.limited else Text("{room} are free", room=room)
    if report.fits:
        return report.estimate, Text("Memory: about {peak} at the peak, {bound}.", peak=peak, bound=bound)
    remedy = (
        Text("what fits: {ways}", ways=_either(report.ways))
        if report.ways
        else Text("nothing smaller fits either; use a smaller model")
    )
    raise UserError(
        "The training needs about {peak} at the peak, and {bound}; {remedy}; or close other programs.",
        peak=peak,
        bound=bound,
        remedy=remedy,
    )


def _either(ways: Sequence[str]) -> str:
    *before, text = ways
    for way in reversed(before):
        text = Text("{way}, or {others}", way=way, others=text)
    return text


def smaller(
    model: Model,
    config: TrainConfig,
    rows: LengthStatistics,
    size: int,
    gpu: bool,
    base: int,
    room: float,
    beside: Beside = ALONE,
) -> list[Change]:
    """Changes of the settings with which the training fits into `room`; several at once where no single one is enough."""

    def fits(change: Change) -> bool:
        changed = replace(config, **change)
        left = rows.up_to(changed.max_length).lengths
        return bool(left) and estimate(model, changed, rows, size, gpu, base, beside).peak <= room

    batch, whole = config.batch_size, config.batch_size * config.gradient_accumulation
    parts = [part for part in range(batch - 1, 0, -1) if batch % part == 0]
    longest = min(config.max_length, max(rows.lengths))
    batches: list[Change] = [{"batch_size": part, "gradient_accumulation": whole // part} for part in parts]
    again: list[Change] = [] if config.gradient_checkpointing else [{"gradient_checkpointing": True}]
    shorter: list[Change] = [{"max_length": 2**power} for power in range(20, 3, -1) if 2**power < longest]
    lora: list[Change] = [{"method": "lora"}] if config.method == "full" else []
    nf4: list[Change] = [{"method": "lora", "quantization": "nf4"}] if config.quantization != "nf4" else []
    ways = [batches, again, shorter, lora, nf4]
    for together in range(1, len(ways) + 1):
        fitting: list[Change] = []
        for several in combinations(ways, together):
            changes = (
                {key: value for change in combined for key, value in change.items()} for combined in product(*several)
            )
            change = next(filter(fits, changes), None)
            if change and not any(change.items() >= less.items() for less in fitting):
                fitting.append(change)
        if fitting:
            return fitting[:MOST_WAYS]
    return []


def check_loading(models: Sequence[Path], size: int, quantization: str = "none") -> None:
    """Refuse to load models, to talk to, that would not fit into the memory that is free now."""
    gpu = resources.on_gpu()
    needed = sum(loading(Model.read(folder), size, quantization, gpu) for folder in models)
    if needed > (room := resources.free()):
        what = Text("The model needs") if len(models) == 1 else Text("The {n} full models need", n=len(models))
        raise UserError(
            "{what} about {needed} and {free} are free; use method lora, a smaller model, or close other programs.",
            what=what,
            needed=gib(needed),
            free=gib(room),
        )
