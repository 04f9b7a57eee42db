"""The measurements, part by part; within a part who is measured alternates, round after round."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from benchmarks import children, peers, rows
from benchmarks.plan import BESIDE, GGUF_KINDS, Bench, Record, llamacpp
from sftdemo.runs import home

PEERS = {"TRL": "trl", "TRL, packing": "trl", "LLaMA-Factory": "llamafactory"}
MODES = {
    "full": {"method": "full"},
    "lora": {},
    "int8": {"quantization": "int8"},
    "nf4": {"quantization": "nf4"},
}
PAGE_SECONDS = 120


def training(bench: Bench) -> Iterator[Record]:
    """Tokens a second, ours and the peers', and the machine's limits between them."""
    lines = rows.training_rows(bench.rows, bench.size.training_rows, bench.seed)
    ours = bench.write("training", lines)
    theirs = bench.write("training-peers", [line for line in lines if line["split"] == "train"])
    missing = {peer: peers.install(bench.peers, peer) for peer in dict.fromkeys(PEERS.values())}
    dtype = "float32"
    for number in range(1, bench.size.rounds + 1):
        mark = {"part": "training", "round": number}
        limits = bench.measure("machine", {})
        dtype = limits.get("training_dtype", dtype)
        yield mark | {"who": "machine"} | limits
        settings = bench.settings(ours, f"training-{number}", precision=dtype)
        yield mark | {"who": "sftdemo"} | bench.measure("train_ours", {"settings": settings, "count": True})
        beside = {"settings": settings | {"name": f"training-{number}-beside"}, "neighbours": 1}
        yield mark | {"who": BESIDE} | bench.measure("train_ours", beside)
        for who, peer in PEERS.items():
            if reason := missing[peer]:
                yield mark | {"who": who, "failed": reason}
                continue
            spec = {
                "model": str(bench.model),
                "rows": str(theirs),
                "out": str(bench.work / f"{peer}-{number}"),
                "dtype": dtype,
                "packing": who == "TRL, packing",
                **{key: settings[key] for key in ("learning_rate", "batch_size", "seed")},
            }
            yield mark | {"who": who} | bench.measure(f"train_{peer}", spec, peers.python(bench.peers, peer))


def chat(bench: Bench) -> Iterator[Record]:
    """Both sides streamed at once against the base alone with `generate`; every answer goes to the limit."""
    prompts = rows.prompts(bench.prompts, bench.size.chat_prompts, bench.seed)
    spec = {
        "run": bench.tuned(),
        "prompts": prompts,
        "max_new_tokens": bench.size.chat_tokens,
        "to_the_limit": True,
        "streamed": True,
    }
    for number in range(1, bench.size.rounds + 1):
        first = number == 1  # once is enough to see whether the tuned side's tokens are the same
        ours = bench.measure("answer_ours", spec)
        plain = bench.measure("answer_plain", spec | {"sides": ["base", "tuned"] if first else ["base"]})
        yield from _answered(bench, "chat", number, prompts, ours, plain)
        beside = bench.measure("answer_ours", spec | {"neighbours": 1})
        beside.pop("texts", None)
        yield {"part": "chat", "round": number, "who": BESIDE, "prompts": len(prompts)} | beside


def runtime(bench: Bench) -> Iterator[Record]:
    """Both sides streamed at once against llama.cpp answering twice in turns, the same weights in several types."""
    prompts = rows.prompts(bench.prompts, bench.size.chat_prompts, bench.seed)
    spec = {"run": bench.tuned(), "prompts": prompts, "max_new_tokens": bench.size.chat_tokens, "to_the_limit": True}
    missing = peers.install(bench.peers, "llamacpp")
    written = {
        kind: bench.measure("write_gguf", {"run": bench.tuned(), "kind": kind, "to": str(bench.work / kind)})
        for kind in ([] if missing else GGUF_KINDS)
    }
    for number in range(1, bench.size.rounds + 1):
        mark = {"part": "runtime", "round": number}
        ours = bench.measure("answer_ours", spec | {"streamed": True})
        ours.pop("texts", None)
        yield mark | {"who": "sftdemo"} | ours
        if missing:
            yield mark | {"who": "llama.cpp", "failed": missing}
        for kind, file in written.items():
            python = peers.python(bench.peers, "llamacpp")
            theirs = file if "failed" in file else bench.measure("answer_llamacpp", spec | file, python)
            yield mark | {"who": llamacpp(kind)} | theirs


def evaluation(bench: Bench) -> Iterator[Record]:
    """Both sides of all prompts, batched, against two loops of `generate`, which share the prompts among the rounds."""
    prompts = rows.prompts(bench.prompts, bench.size.prompts, bench.seed)
    spec = {
        "run": bench.tuned(),
        "max_new_tokens": bench.size.answer_tokens,
        "to_the_limit": False,
        "streamed": False,
        "sides": ["base", "tuned"],
    }
    rounds = bench.size.rounds
    for number in range(1, rounds + 1):
        ours = bench.measure("answer_ours", spec | {"prompts": prompts})
        chosen = slice(number - 1, None, rounds)
        plain = bench.measure("answer_plain", spec | {"prompts": prompts[chosen]})
        if "texts" in ours:
            ours["prompts"] = len(prompts)
            ours["texts"] = ours["texts"][chosen]
        yield from _answered(bench, "evaluation", number, prompts[chosen], ours, plain)


def _answered(
    bench: Bench, part: str, number: int, prompts: list[Any], ours: dict[str, Any], plain: dict[str, Any]
) -> Iterator[Record]:
    """Records of both, without their texts, and of how many answers are the same, token for token."""
    mark = {"part": part, "round": number}
    texts = ours.pop("texts", None)
    yield mark | {"who": "sftdemo", "prompts": len(prompts)} | ours
    if "failed" in plain:
        yield mark | {"who": "generate"} | plain
        return
    told = {side: {key: answer[key] for key in ("seconds", "tokens")} for side, answer in plain.items()}
    yield mark | {"who": "generate", "prompts": len(prompts)} | told
    if texts is None:
        return
    pairs = [(side, i) for side in plain for i in range(len(prompts))]
    # A character cut at the limit: generate's decoder writes a replacement mark for it, the chat holds it back.
    cases = [
        {"side": side, "prompt": prompts[i], "plain": plain[side]["ids"][i], "ours": texts[i][side]}
        for side, i in pairs
        if texts[i][side].strip() != plain[side]["texts"][i].rstrip("\ufffd").strip()
    ]
    excused = bench.measure("excuse", {"run": bench.tuned(), "cases": cases}) if cases else {"ties": 0}
    same = {"answers": len(pairs), "identical": len(pairs) - len(cases)}
    yield mark | {"who": "same tokens"} | same | excused


def startup(bench: Bench) -> Iterator[Record]:
    """Seconds from a process' start to its first page."""
    apps = {"sftdemo": ["sftdemo", "app", "--port"], "hello world": ["benchmarks.tasks.hello"]}
    for number in range(1, bench.size.rounds + 1):
        for who, command in apps.items():
            port = free_port()
            found = first_page([sys.executable, "-m", *command, str(port)], port, bench)
            yield {"part": "startup", "who": who, "round": number} | found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_page(command: list[str], port: int, bench: Bench) -> dict[str, Any]:
    """{"seconds"} until the page answers 200, or {"failed"}. The process is ended afterwards."""
    began = time.perf_counter()
    log = bench.work / "page.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=bench.work, env=children.environment(home().resolve()), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        while time.perf_counter() < began + PAGE_SECONDS:
            if process.poll() is not None:
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
                return {"failed": f"exit status {process.returncode}: {said[-1][:200]}"}
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PAGE_SECONDS) as answer:
                    if answer.status == 200:
                        return {"seconds": time.perf_counter() - began}
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        return {"failed": f"no page after {PAGE_SECONDS} s"}
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def memory(bench: Bench) -> Iterator[Record]:
    """What the second side holds beside the base, and the peak of training in each mode."""
    prompt = rows.prompts(bench.prompts, 1, bench.seed)[0]
    for number in range(1, bench.size.rounds + 1):
        for who, task in (("generate, the base alone", "generate"), ("base alone", "base"), ("both sides", "both")):
            found = bench.measure("resident", {"run": bench.tuned(), "prompt": prompt, "who": task})
            yield {"part": "memory", "who": who, "round": number} | found
    data = bench.write("memory", rows.training_rows(bench.rows, bench.size.memory_rows, bench.seed))
    for mode, settings in MODES.items():
        spec = {"settings": bench.settings(data, f"memory-{mode}", **settings)}
        yield {"part": "memory", "who": mode, "round": 1} | bench.measure("train_ours", spec)


def scaling(bench: Bench) -> Iterator[Record]:
    """The same number of steps out of ever more rows: neither speed nor memory should notice."""
    for count in bench.size.scales:
        data = bench.write(f"rows-{count}", rows.training_rows("mixed", count, bench.seed))
        epochs = min(bench.size.scales) / count
        spec = {"settings": bench.settings(data, f"rows-{count}", epochs=epochs)}
        yield {"part": "scaling", "who": f"{count:,} rows", "round": 1} | bench.measure("train_ours", spec)


PARTS = {
    "training": training,
    "chat": chat,
    "runtime": runtime,
    "evaluation": evaluation,
    "startup": startup,
    "memory": memory,
    "scaling": scaling,
}
