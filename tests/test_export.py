"""What leaves the house: each format opened again answers as the run does, or nothing is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import torch
from huggingface_hub import ModelCard

from sftdemo import EvaluateConfig, ExportConfig, TrainConfig, compress, export, files, import_run, runs, train
from sftdemo.config.export import FORMATS
from sftdemo.errors import UserError
from sftdemo.inference import merged
from sftdemo.log import Reporter
from sftdemo.model import fresh_answers, gguf_export, loading
from sftdemo.ui import downloads, work
from sftdemo.ui.access import rights, uploads
from sftdemo.verbs import export_check
from tests.conftest import home_at, label_rows
from tests.in_process import owners_request
from tests.interrupting import forked
from tests.listener import Impatient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny) -> Path:
    """A home with a LoRA run, `lora`, and one of all weights, `full`."""
    folder = tmp_path_factory.mktemp("trained")
    files.write_jsonl(folder / "moods.jsonl", label_rows(60))
    with home_at(folder / "home") as path:
        for method in ("lora", "full"):
            settings = {"data": str(folder / "moods.jsonl"), "model": tiny, "name": method, "method": method}
            train(TrainConfig.from_json(settings | {"learning_rate": 5e-3, "precision": "float32"}))
    return path


@pytest.fixture
def home(trained, monkeypatch) -> Path:
    monkeypatch.setenv("SFTDEMO_HOME", str(trained))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return trained


def answered_here(monkeypatch) -> None:
    """The check's question is answered in this process, which saves seconds; the slow test has the real one."""

    def ask(question, path, runtime, base, quantization, should_stop):
        whole = question | {
            "runtime": runtime,
            "path": str(path),
            "base": str(base or ""),
            "quantization": quantization,
        }
        return fresh_answers.by_transformers(whole)

    monkeypatch.setattr(export_check, "ask", ask)
    monkeypatch.setattr(export_check, "runtime_for", lambda form: "transformers")


@pytest.mark.parametrize(
    ("name", "form", "dtype"),
    [
        ("lora", "auto", "float32"),
        ("lora", "merged", "float32"),
        ("lora", "merged", "bfloat16"),
        ("full", "auto", "float32"),
        pytest.param("lora", "gguf-f16", "float32", marks=pytest.mark.slow),
        pytest.param("full", "gguf-q8_0", "float32", marks=pytest.mark.slow),
        ("lora", "gguf-q4_0", "float32"),
    ],
)
def test_an_export_answers_as_its_run(home, tmp_path, monkeypatch, name, form, dtype):
    answered_here(monkeypatch)
    exported = export(name, tmp_path / "out", config=ExportConfig(format=form, dtype=dtype))
    check = exported.check
    assert check.rows == 10 and check.prompts_same == 10 and check.tokens >= 10
    if form in ("auto", "merged") and dtype == "float32":
        assert check.exact
    elif "q4" not in form:
        assert check.same_tokens > check.tokens / 2
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert exported.sentence in card.text and card.data.library_name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    written = [path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix in (".md", ".json")]
    assert not any(str(home) in text or str(home.parent) in text for text in written)
    if form.startswith("gguf"):
        modelfile = (tmp_path / "out" / "Modelfile").read_text()
        [file] = (tmp_path / "out").glob("*.gguf")
        assert f"FROM ./{file.name}\n" in modelfile and 'PARAMETER stop "<|im_end|>"' in modelfile


def test_an_imported_adapter_is_asked_general_questions(home, tiny, tmp_path, monkeypatch):
    """It has no rows; a page has no --no-verify to be told of."""
    answered_here(monkeypatch)
    imported = import_run(str(runs.find("lora").model_path), base=tiny)
    try:
        exported = export(imported, tmp_path / "out")
        assert exported.check.rows == 10 and exported.check.exact
        with pytest.raises(UserError, match="imported without its rows, which a student learns on"):
            compress(imported, drop_layers=1)
    finally:
        imported.delete()


def test_a_run_whose_rows_are_lost_is_still_taken_away(home, tmp_path, monkeypatch):
    answered_here(monkeypatch)
    lost = runs.Run(shutil.copytree(runs.find("full").path, home / "runs" / "lost"))
    try:
        shutil.rmtree(lost.path / "data")
        check = export(lost, tmp_path / "out").check
        assert check.rows == 10 and check.exact
    finally:
        lost.delete()


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_exports_of_quantized_runs_tell_how_far_their_answers_are_the_runs(
    tiny, tmp_path, monkeypatch, home, quantization
):
    """The adapter beside the same rounded weights is the run; merged into the plain ones it is off by the rounding."""
    answered_here(monkeypatch)
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "home"))
    files.write_jsonl(tmp_path / "moods.jsonl", label_rows(60))
    settings = {
        "data": str(tmp_path / "moods.jsonl"),
        "model": tiny,
        "name": quantization,
        "quantization": quantization,
    }
    train(TrainConfig.from_json(settings | {"learning_rate": 5e-3, "precision": "float32"}))
    for form in ("adapter", "merged", "gguf-q8_0"):
        exported = export(quantization, tmp_path / form, config=ExportConfig(format=form))
        check = exported.check
        assert check.rows == check.prompts_same == 10 and check.tokens >= 10
        assert check.exact if form == "adapter" else check.same_tokens >= check.tokens / 2
        figure = f"to {check.same_rows} of 10 rows; {check.same_tokens} of {check.tokens} tokens"
        assert figure in exported.sentence and figure in (tmp_path / form / "README.md").read_text()


@pytest.mark.parametrize("looks", [0, 5, 10, 11])
def test_an_export_that_is_stopped_leaves_nothing(home, tmp_path, looks):
    """Before the run is asked, amid its ten answers, and before or after its files are written."""

    with pytest.raises(KeyboardInterrupt):
        export("lora", tmp_path / "out", merge=True, reporter=Impatient(looks))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_export_and_leaves_nothing(home, tmp_path, number):
    command = [sys.executable, "-m", "sftdemo", "export", "lora", "--to", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True) as exporting:
        while not list(tmp_path.glob(".out.*.part")):
            assert exporting.poll() is None
            time.sleep(0.05)
        exporting.send_signal(number)
        said = exporting.communicate(timeout=120)[1]
    assert not list(tmp_path.iterdir())
    assert exporting.returncode == (130 if number == signal.SIGINT else -number)
    assert "sftdemo: stopped." in said and "Traceback" not in said


def test_what_a_killed_export_left_goes_with_the_next_one_to_that_place(home, tmp_path):
    class Killed(Reporter):
        def info(self, text: str) -> None:
            if text == "Opening the export in a new process …":
                os.kill(os.getpid(), signal.SIGKILL)

    place, merged_too = tmp_path / "out [1]", ExportConfig(format="merged", verify=False)
    assert forked(lambda: export("lora", place, merge=True, reporter=Killed())) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out [1].") and (left / "model.safetensors").is_file()
    mine = tmp_path / f".out [1].{os.getpid()}.0.part"
    mine.mkdir()  # of a process that lives
    export("lora", place, config=merged_too)
    assert sorted(tmp_path.iterdir()) == [mine, place]


def test_a_changed_weight_is_found_and_nothing_is_left(home, tmp_path, monkeypatch):
    answered_here(monkeypatch)
    save = merged.save

    def spoiled(run, base, folder, dtype, shard_mb):
        save(run, None if base is None else base, folder, dtype, shard_mb)
        model = loading.load_base(folder, torch.float32)
        torch.nn.init.normal_(model.model.layers[0].mlp.down_proj.weight, std=0.5)
        model.save_pretrained(folder)

    monkeypatch.setattr(merged, "save", spoiled)
    with pytest.raises(UserError, match="answers otherwise than the run, so nothing was kept"):
        export("lora", tmp_path / "out", merge=True)
    assert list(tmp_path.iterdir()) == []


def test_faults_are_one_line_and_leave_nothing(home, tmp_path, monkeypatch):
    unchecked = {"verify": False}
    with pytest.raises(UserError, match="Run full has full weights and no adapter"):
        export("full", tmp_path / "out", config=ExportConfig(format="adapter", **unchecked))
    monkeypatch.setattr(gguf_export, "write", lambda *_: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(UserError, match="is full; make room"):
        export("lora", tmp_path / "out", config=ExportConfig(format="gguf-f16", **unchecked))
    (tmp_path / "taken.zip").touch()
    with pytest.raises(UserError, match="is not an empty folder"):
        export("lora", tmp_path / "taken.zip", config=ExportConfig(zip=True, **unchecked))
    assert [path.name for path in tmp_path.iterdir()] == ["taken.zip"]


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_place_that_is_taken_while_an_export_is_written_is_one_line(home, tmp_path, as_folder):
    place = tmp_path / "out"

    class Other(Reporter):
        """Another process that exports there, and is done first."""

        def info(self, text: str) -> None:
            if text == "Writing the export …":
                (place / "model").mkdir(parents=True) if as_folder else place.write_text("other")

    with pytest.raises(UserError, match="out is not an empty folder; give a new one"):
        export("lora", place, reporter=Other(), config=ExportConfig(verify=False))
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("file", "changes", "fault"),
    [
        ("config.json", {"model_type": "gemma"}, "kind gemma can't be written as GGUF"),
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "only byte-level BPE"),
    ],
)
def test_gguf_refuses_what_it_would_write_wrongly(tiny, tmp_path, file, changes, fault):
    folder = shutil.copytree(tiny, tmp_path / "model")
    files.write_json(folder / file, files.read_json(folder / file) | changes)
    with pytest.raises(UserError, match=fault):
        gguf_export.check(folder)


def test_zip_and_shards(home, tmp_path):
    config = ExportConfig(format="merged", shard_mb=1, dtype="float16", zip=True, verify=False)
    export("lora", tmp_path / "mine.zip", config=config)
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
        assert {"README.md", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
        assert all(name.startswith("mine/") for name in archive.namelist())
        assert json.loads(archive.read("mine/config.json"))["dtype"] == "float16"


@pytest.fixture
def panel():
    gr = pytest.importorskip("gradio")
    from sftdemo.ui.parts.page import Page
    from sftdemo.ui.tabs.export import ExportPanel

    with gr.Blocks() as blocks:
        return ExportPanel(Page(blocks, run=gr.State(""), timer=gr.Timer(active=False)), gr.State(""))


def end_of(panel, name: str, lang: str = "en") -> str:
    """What stands on the page once the export is over."""
    work.export().thread.join()
    return panel.progress.draw(runs.named(name), lang)[panel.progress.view]


def browser(lang: str = "en") -> SimpleNamespace:
    return owners_request(headers={"accept-language": lang})


def test_the_page_exports_a_zip_to_download_and_deletes_it_in_time(home, monkeypatch, panel):
    answered_here(monkeypatch)
    shown = panel.show(runs.named("lora"), "en")
    assert shown[panel.panel]["visible"] and [form for _, form in shown[panel.format]["choices"]] == list(FORMATS[1:])
    begun = panel.export("lora", "merged", browser())
    assert begun[panel.page.timer]["active"] and begun[panel.page.exporting] == work.export_told()
    link = end_of(panel, "lora")
    assert "Opened again by transformers" in link and 'download="lora-merged.zip"' in link
    path = Path(unquote(re.search('file=([^"]+)"', link)[1]))
    with zipfile.ZipFile(path) as archive:
        assert {"lora-merged/README.md", "lora-merged/model.safetensors"} <= set(archive.namelist())
    assert path.is_relative_to(downloads.folder()) and [*path.parent.iterdir()] == [path]
    assert panel.show(runs.named("lora"), "en")[panel.progress.view] == link, "after a reload it is still there"
    assert panel.show(runs.named("lora"), "en")[panel.format]["value"] == "merged", "what stands below it"
    assert "由 transformers 在新进程中重新打开" in panel.show(runs.named("lora"), "zh")[panel.progress.view]
    assert panel.show(runs.named("full"), "en")[panel.progress.view] == ""
    uploads.sweep(time.time() + 3600)
    assert path.is_file()
    uploads.sweep(time.time() + 25 * 3600)
    assert not path.parent.exists()
    assert panel.show(runs.named("lora"), "en")[panel.progress.view] == "", "no link to what is gone"


def test_full_weights_are_offered_no_adapter_and_get_one_line(home, panel):
    assert "adapter" not in [form for _, form in panel.show(runs.named("full"), "en")[panel.format]["choices"]]
    with pytest.raises(UserError, match="format"):
        panel.export("full", "pickle", browser())
    for lang, words in (("en", "has full weights and no adapter"), ("zh", "没有适配器")):
        panel.export("full", "adapter", browser())
        assert words in end_of(panel, "full", lang)
    assert [*downloads.folder().glob("*/.*.part")] == []


def test_exports_trainings_and_evaluations_wait_for_each_other(home, panel, monkeypatch):
    evaluation = work.Evaluation(runs.named("lora"), EvaluateConfig(), 1)
    ended = threading.Event()
    monkeypatch.setattr(work.Evaluation, "_work", lambda self: ended.wait())
    monkeypatch.setattr(work, "_evaluation", evaluation)
    evaluation.start()
    with pytest.raises(UserError, match="An evaluation of lora is running"):
        panel.export("full", "merged", browser())
    ended.set()
    evaluation.thread.join()
    training = runs.create("busy", "busy", {})
    training.write_status("running")
    panel.export("full", "merged", browser())
    assert "Run busy is still training" in end_of(panel, "full")
    shutil.rmtree(training.path)
    ended.clear()
    monkeypatch.setattr(work.Export, "_work", lambda self: ended.wait())
    running = work.start_export(runs.named("lora"), ExportConfig(zip=True), downloads.new_place("lora.zip"))
    with pytest.raises(UserError, match="Run lora is being exported"):
        work.start_evaluation(runs.named("full"), EvaluateConfig(), 1, rights.LOCAL)
    with pytest.raises(UserError, match="Run lora is being exported"):
        panel.export("full", "merged", browser())
    ended.set()
    running.thread.join()


@pytest.mark.parametrize("form", ["adapter", "gguf-q8_0"])
def test_a_new_process_answers_as_the_run(home, tmp_path, form):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sftdemo", "export", "lora", "--to", str(out), "--format", form, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    check = json.loads(done.stdout)["check"]
    assert check["rows"] == 10 and check["prompts_same"] == 10
    assert check["same_rows"] == 10 or form != "adapter"
    assert runs.find("lora").model_path.is_dir() and (out / "README.md").is_file()
