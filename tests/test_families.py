"""Every family of models, tiny: trained, answered, saved and merged as transformers and PEFT alone would, with rows and prompts
shorter and longer than the models' windows."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from conftest import PLACES, TEXTS
from families import FAMILIES, build
from models_table import PAGE, page
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from sftdemo import files, runs
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.config.export import ExportConfig
from sftdemo.encoding.encode import encode_prompt
from sftdemo.encoding.packing import Collator
from sftdemo.encoding.rows import Encoded
from sftdemo.inference import decoding, load_run
from sftdemo.inference.engine import Engine
from sftdemo.inference.server import ServedRuns
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.model import loading
from sftdemo.training.chat_learner import trainable
from sftdemo.verbs.export import export

pytestmark = pytest.mark.slow

SPANS = ("sliding_window", "attention_chunk_size", "window_size")
WINDOWED = [name for name, (_, own) in FAMILIES.items() if any(own.get(key) for key in SPANS)]
# One of each kind of layer; the others are like one of these, and slow together.
KINDS = ("Llama", "Gemma 4", "DeepSeek V3", "GPT-OSS", "Qwen3.5", "LFM3", "Granite 4 hybrid", "Mamba 2", "MPT", "GPT-2")
FAST = ("Llama", "Gemma 4", "Qwen3.5", "MPT", "GPT-2")
RECURRENT = ("Qwen3.5", "LFM2", "LFM3", "Granite 4 hybrid", "Falcon-H1", "Mamba", "Nemotron-H")
FAST_WINDOWS = ("Mistral", "Gemma 4", "GPT-OSS", "Llama 4")  # plain, alternating, with sinks, in chunks


def fast_alone(names: Iterable[str], fast: Sequence[str]) -> list[Any]:
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


WORDS = [*" ".join(TEXTS).split(), *PLACES[:5]]
DATA = {"task": "chat", "format": "messages", "instruction": ""}
SETTINGS = {"lora_r": 4, "lora_alpha": 8}
LONGEST = 40  # tokens of most answers that are compared
NEAR_TIE = 1e-4  # logits nearer to each other may be put in either order by rounding


@pytest.mark.parametrize("name", fast_alone(WINDOWED, FAST_WINDOWS))
def test_the_tiny_models_windows_matter(name):
    """Else nothing here would see a window that is ignored."""
    window = max(FAMILIES[name][1].get(key) or 0 for key in SPANS)
    ids = torch.randint(2, 400, (1, 2 * window), generator=torch.Generator().manual_seed(0))
    changed = {key: 512 for key in SPANS if key in FAMILIES[name][1]}
    with torch.no_grad():
        near, far = (build(name, **changes)[1](ids).logits for changes in ({}, changed))
    assert torch.allclose(near[:, :window], far[:, :window], rtol=1e-3, atol=1e-4)
    assert (near - far)[:, window:].norm() > 0.05 * near[:, window:].norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """By family: the folder of its tiny model."""

    @cache
    def saved(name: str) -> Path:
        path = tmp_path_factory.mktemp("family")
        build(name, len(tokenizer))[1].save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return saved


def learnable(base: Path, method: str) -> tuple[Any, bool]:
    """What training trains, and whether packed; its adapter has a large effect."""
    torch.manual_seed(1)
    model, packed = trainable(loading.load_base(base, torch.float32), TrainConfig(method=method, **SETTINGS))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model, packed


def plain(base: Path, own: Path | None = None) -> Any:
    """The base by transformers alone; or its own weights or adapter in a folder, with PEFT."""
    if own and not (own / "adapter_config.json").exists():
        base, own = own, None
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return PeftModel.from_pretrained(model, str(own), is_trainable=True).eval() if own else model


def encoded(lengths: list[tuple[int, int]]) -> list[Encoded]:
    """Rows of any tokens that begin alike, each so many more tokens and so many of them learned."""
    drawn = torch.Generator().manual_seed(0)
    first, *rows = [
        torch.randint(3, 300, (count,), generator=drawn).tolist() for count in (9, *(n for n, _ in lengths))
    ]
    return [
        Encoded(first + row, [False] * (9 + len(row) - learned) + [True] * learned)
        for row, (_, learned) in zip(rows, lengths, strict=True)
    ]


def summed_loss(model: Any, row: Encoded) -> Tensor:
    """The loss of a row's learned tokens, the row read by itself."""
    ids = torch.tensor([row.ids])
    learned = [place for place, learned in enumerate(row.supervised) if learned]
    logits = model(ids, use_cache=False).logits[0, [place - 1 for place in learned]]
    return torch.nn.functional.cross_entropy(logits, ids[0, learned], reduction="sum")


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("name", "method"),
    [pytest.param(name, "lora", marks=[] if name in (*FAST, *FAST_WINDOWS) else pytest.mark.slow) for name in FAMILIES]
    + [pytest.param(name, "full", marks=[] if name in FAST else pytest.mark.slow) for name in FAMILIES],
)
def test_losses_and_gradients_are_those_of_transformers_and_peft(name, method, folder, tmp_path):
    """On what was saved; of rows together and of each by itself, within the window and beyond."""
    model, packed = learnable(folder(name), method)
    model.save_pretrained(tmp_path)
    alone = plain(folder(name), tmp_path)
    for lengths in ([(5, 3), (9, 6), (2, 1)], [(81, 30), (181, 90), (6, 4)]):
        rows = encoded(lengths)
        wanted = []
        for row in rows:
            loss = summed_loss(alone, row)
            loss.backward()
            wanted.append(loss.item())
        exact = gradients(alone)
        for some, losses in ([rows, wanted], *([[row], [loss]] for row, loss in zip(rows, wanted, strict=True))):
            batch = Collator(packed)(some)
            batch.pop("row_tokens")
            loss = model(**batch)
            assert loss.item() == pytest.approx(sum(losses), rel=1e-5), len(some)
            if len(some) == len(rows):
                loss.backward()
                found = gradients(model)
        assert found.keys() == exact.keys()
        size = torch.stack([each.norm() for each in exact.values()]).norm()
        for key, each in exact.items():
            assert (found[key] - each).norm() <= 1e-3 * each.norm() + 1e-5 * size, key


class Talk:
    """Both sides of a run as the product loads them, and each by transformers and PEFT alone; answers as token ids."""

    def __init__(self, pair: SideBySide, alone: dict[str, Any], tokenizer: Any, patch: pytest.MonkeyPatch) -> None:
        self.pair, self.alone, self.tokenizer = pair, alone, tokenizer
        self.answers: dict[tuple[int, str], list[int]] = {}
        self.generated: dict[tuple[str, tuple[int, ...]], tuple[list[int], list[float]]] = {}
        step = decoding._step

        def noted(row: Any, token: int) -> Any:
            taken = step(row, token)
            self.answers.setdefault((row.index, row.side), []).extend([] if taken.token is None else [token])
            return taken

        patch.setattr(decoding, "_step", noted)  # a text may hold back the bytes of a character that isn't whole

    def wanted(self, chat: list[dict[str, str]], count: int) -> dict[str, tuple[list[int], bool]]:
        """By side what plain `generate` answers in so many tokens at most, and whether two were ever equally likely."""
        return {side: self._answer(side, chat, count) for side in self.alone}

    def _answer(self, side: str, chat: list[dict[str, str]], count: int) -> tuple[list[int], bool]:
        """The beginning of the longest answer that was needed: a shorter one, or one that is stopped, is the same so far."""
        prompt = tuple(encode_prompt(self.tokenizer, chat))
        tokens, leads = self.generated.get((side, prompt), ([], []))
        if len(tokens) < count:
            tokens, leads = self.generated[side, prompt] = self._generated(
                self.alone[side], prompt, max(count, LONGEST)
            )
        ends = [place for place, token in enumerate(tokens[:count]) if token in self.pair.stop_ids]
        end = min(ends, default=count)
        return tokens[:end], min(leads[: min(end + 1, count)]) < NEAR_TIE

    @torch.no_grad()
    def _generated(self, model: Any, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """So many tokens, whatever they are, and how far each was ahead of the next likely one."""
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=1, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        best = torch.stack(out.logits)[:, 0].topk(2).values
        return out.sequences[0, ids.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()

    def streamed(self, messages: Any, count: int) -> dict[str, list[int]]:
        self.answers.clear()
        ended = [
            chunk.side
            for chunk in self.pair.stream(messages, GenerateConfig(max_new_tokens=count))
            if chunk.finish_reason
        ]
        assert sorted(ended) == sorted(self.pair.names)
        return {side: self.answers[0, side] for side in self.pair.names}

    def completed(self, asked: list[Any], count: int, at_once: int) -> list[dict[str, list[int]]]:
        self.answers.clear()
        assert len(self.pair.complete(asked, GenerateConfig(max_new_tokens=count), at_once)) == len(asked)
        return [{side: self.answers[index, side] for side in self.pair.names} for index in range(len(asked))]

    def at_once(self, asked: list[Any], count: int) -> list[dict[str, list[int]]]:
        """Answered by the engine, as different visitors' questions."""
        self.answers.clear()
        engine = Engine(self.pair.sides, self.pair.lock)
        served = ServedRuns(self.pair, engine, {name: name for name in self.pair.names})
        events: SimpleQueue[Any] = SimpleQueue()
        with ExitStack() as stack:
            for number, chat in enumerate(asked):
                question = served.question(events.put, chat, GenerateConfig(max_new_tokens=count), ("v", f"{number}"))
                for row in question.rows:
                    row.index = number
                stack.enter_context(engine.asked(question))
            left = len(asked) * len(self.pair.names)
            while left:
                event = events.get(timeout=60)
                assert not isinstance(event, Exception), event
                left -= bool(getattr(event, "finish_reason", None))
        engine.retire()
        assert engine.wait_end(10)
        return [{side: self.answers[number, side] for side in self.pair.names} for number in range(len(asked))]


def agree(answers: dict[str, list[int]], wanted: dict[str, tuple[list[int], bool]]) -> None:
    for side, (answer, tied) in wanted.items():
        assert answers[side] == answer or tied, side


@pytest.fixture(scope="module")
def run_of(folder, tokenizer, tmp_path_factory):
    """By family and method: a run, and its two sides by transformers and PEFT alone."""

    @cache
    def made(name: str, method: str) -> tuple[runs.Run, dict[str, Any]]:
        run = runs.Run(tmp_path_factory.mktemp("run") / method)
        tuned, _ = learnable(folder(name), method)
        if method == "full":
            with torch.no_grad():
                for parameter in tuned.parameters():
                    parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
        tuned.save_pretrained(run.model_path)
        tokenizer.save_pretrained(run.model_path)
        tuned.generation_config.save_pretrained(run.model_path)
        settings = TrainConfig(model=str(folder(name)), method=method, **SETTINGS).to_json()
        files.write_json(
            run.path / "config.json", {"settings": settings, "base_model": str(folder(name)), "data": DATA}
        )
        files.write_text(run.path / "README.md", "A run.")
        return run, {"base": plain(folder(name)), "tuned": plain(folder(name), run.model_path)}

    return made


@pytest.fixture
def talk(run_of, tokenizer, monkeypatch):
    """A run of a family, to talk to."""

    def open_(name: str, method: str) -> Talk:
        run, alone = run_of(name, method)
        return Talk(load_run.load(run), alone, tokenizer, monkeypatch)

    return open_


def chats(counts: list[int], head: str = "") -> list[list[dict[str, str]]]:
    """Questions of so many words."""
    draw = random.Random(0)
    system = [{"role": "system", "content": head}] if head else []
    return [[*system, {"role": "user", "content": " ".join(draw.choices(WORDS, k=count))}] for count in counts]


HEAD = "lovely nice good great fine and the room was"


@pytest.mark.parametrize("name", list(FAMILIES))
def test_answers_are_those_of_plain_generate(name, talk):
    """Of a prompt shorter than the window, one that crosses it while it is answered and one beyond: alone, side by side, in
    turns, of unlike length together, where others have ended, and behind a common beginning."""
    both = talk(name, "lora")
    check_answers(both)


@pytest.mark.parametrize("name", KINDS)
def test_answers_of_two_full_models_are_those_of_plain_generate(name, talk):
    check_answers(talk(name, "full"))


def check_answers(both: Talk) -> None:
    pair = both.pair
    pair.stop_ids = frozenset()  # answers as long as asked for
    short, crossing, long = chats([3, 15, 100])
    long_answer = both.wanted(crossing, 80)
    agree(both.streamed(crossing, 80), long_answer)
    base, tuned = (long_answer[side][0] for side in pair.names)
    assert len(base) == 80
    # The next turn begins where the last has ended, or is read anew.
    turn = [*crossing, {"role": "assistant", "content": both.tokenizer.decode(tuned)}, *short]
    agree(both.streamed(turn, 12), both.wanted(turn, 12))
    # Each side may have a history of its own.
    apart = {"base": both.wanted(short, 12)["base"], "tuned": both.wanted(long, 12)["tuned"]}
    agree(both.streamed({"base": short, "tuned": long}, 12), apart)
    unlike = [base != tuned, apart["base"][0] != both.wanted(short, 12)["tuned"][0]]
    # Different visitors ask at once, one of them with a prompt that is read in parts where it can be.
    questions = [short, long, crossing, turn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftdemo.inference.engine.PREFILL_TOKENS", 64)
        for answer, chat in zip(both.at_once(questions, 30), questions, strict=True):
            agree(answer, both.wanted(chat, 30))
    # A token that some answers hold ends them early; others then begin in their place.
    pair.stop_ids = frozenset(base[10:13])
    for asked in ([short, crossing, long], chats([4, 60, 12], HEAD)):
        wanted = [both.wanted(chat, 40) for chat in asked]
        unlike += [each["base"][0] != each["tuned"][0] for each in wanted]
        for at_once in (3, 2):
            for found, each in zip(both.completed(asked, 40, at_once), wanted, strict=True):
                agree(found, each)
    assert any(unlike), "the adapter changes no answer"


@pytest.mark.parametrize("name", fast_alone(FAMILIES, FAST))
def test_likelihoods_are_those_of_plain_passes(name, talk):
    """Of labels and references after prompts of unlike length, read together."""
    both = talk(name, "lora")
    prompts = chats([3, 100, 12])
    drawn = torch.Generator().manual_seed(0)
    labels, references = (
        [torch.randint(3, 300, (count,), generator=drawn).tolist() for count in counts]
        for counts in ([1, 3, 2], [5, 12, 8])
    )
    found: dict[int, dict[str, Any]] = {}
    config = GenerateConfig(max_new_tokens=2)
    for some in both.pair.answers(prompts, config, labels=labels, references=references):
        found |= some
    for index, chat in enumerate(prompts):
        prompt = encode_prompt(both.tokenizer, chat)
        for side, model in both.alone.items():
            sums = []
            for ids in (*labels, references[index]):
                learned = [False] * len(prompt) + [True] * len(ids)
                with torch.no_grad():
                    sums.append(-summed_loss(model, Encoded(prompt + ids, learned)).item())
            assert found[index][f"{side}_likelihoods"] == pytest.approx(sums[:-1], rel=1e-4)
            assert found[index][f"{side}_nll"] == pytest.approx(-sums[-1], rel=1e-4)


@pytest.mark.parametrize("name", fast_alone(FAMILIES, FAST))
def test_merging_changes_nothing(name, run_of, tmp_path):
    run, alone = run_of(name, "lora")
    merged = export(run, tmp_path / "merged", merge=True, config=ExportConfig(verify=False)).path
    ids = torch.tensor([row.ids for row in encoded([(150, 1)])])
    with torch.no_grad():
        wanted, found = alone["tuned"](ids).logits, plain(merged)(ids).logits
    assert (found - wanted).norm() <= 1e-4 * wanted.norm()
    shutil.rmtree(merged)


def test_the_page_of_models_is_what_the_code_does():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python tests/models_table.py`"


@pytest.mark.parametrize("name", fast_alone(RECURRENT, ("Qwen3.5", "Mamba")))
def test_recurrent_models_are_never_packed_nor_share_what_was_read(name, folder):
    assert not trainable(loading.load_base(folder(name), torch.float32), TrainConfig(method="full"))[1]
    side = load_run.answering(loading.load_base(folder(name), torch.float32), ("base",))
    assert side.can_join and not side.can_share


@pytest.fixture
def data(tmp_path) -> str:
    """Conversations within the window and beyond, a few of them held out."""
    draw = random.Random(0)
    rows = []
    for number in range(16):
        said = [" ".join(draw.choices(WORDS, k=count)) for count in ((3, 2), (40, 60), (90, 5))[number % 3]]
        split = "train" if number < 8 else "validation" if number < 12 else "test"
        rows.append({"prompt": said[0], "completion": said[1], "split": split})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
