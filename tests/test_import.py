"""What comes from elsewhere becomes a run that answers as it did there, or one line says why not; nothing half is left."""

from __future__ import annotations

import errno
import json
import shutil
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from sftdemo import EvaluateConfig, ExportConfig, evaluate, export, files, import_run, load, runs
from sftdemo.config import GenerateConfig
from sftdemo.encoding.encode import encode_prompt
from sftdemo.errors import UserError
from sftdemo.evaluation.system_answers import answers_of
from sftdemo.inference import load_run
from sftdemo.model import loading
from sftdemo.ui.report.document import report
from tests.conftest import home_at, label_rows
from tests.hub_standin import Repository, serving
from tests.listener import Listener

pytestmark = pytest.mark.slow

OLD = Path(__file__).parent / "old"
ASKED = [{"role": "user", "content": "the film 7 was good and bad"}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, babbler) -> Path:
    """Another machine: a home with an evaluated LoRA run, its exports as adapter and merged, and what it answers."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with home_at(Path(shutil.copytree(OLD, folder / "home"))) as home:
        config = home / "runs" / "old" / "config.json"
        config.write_text(config.read_text().replace("/tmp/old/base", babbler).replace("/tmp/old", str(folder)))
        for form in ("adapter", "merged"):
            export("old", folder / form, config=ExportConfig(format=form, verify=False))
        folder.joinpath("answer.json").write_text(json.dumps(answers("old")))
    return folder


@pytest.fixture
def elsewhere(trained, home, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "elsewhere"))


def answers(name: str) -> dict[str, str]:
    [reply] = load(name).complete([ASKED], GenerateConfig(max_new_tokens=6))
    return reply


KINDS = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"down_proj": 64},
        "layers_to_transform": [1],
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_lora_gives_the_logits_of_plain_peft(babbler, home, tmp_path, kind):
    torch.manual_seed(0)
    modules = ["q_proj", "v_proj", "down_proj"]
    spec = LoraConfig(r=4, lora_alpha=24, target_modules=modules, task_type="CAUSAL_LM", **KINDS[kind])
    made = get_peft_model(loading.load_base(Path(babbler), torch.float32), spec)
    for name, weights in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.1)
    made.save_pretrained(tmp_path / "adapter")
    change(tmp_path / "adapter", revision="abc123")
    heard = Listener()
    run = import_run(str(tmp_path / "adapter"), "mine", babbler, heard)
    assert any("revision 'abc123'" in line for line in heard.notes)
    plain = PeftModel.from_pretrained(loading.load_base(Path(babbler), torch.float32), str(tmp_path / "adapter")).eval()
    asked = torch.tensor([encode_prompt(loading.tokenizer(Path(babbler)), ASKED)])
    with torch.no_grad():
        tuned = plain(asked).logits[:, -1]
        with plain.disable_adapter():
            base = plain(asked).logits[:, -1]
        [side] = load_run.load_sides([run])
        for rows, expected in ((slice(0, 1), tuned), (None, base)):
            side.rows.read([rows], [asked.shape[1]])
            torch.testing.assert_close(side.model(asked).logits[:, -1].float(), expected, rtol=1e-3, atol=1e-3)
    assert (tuned - base).abs().max() > 0.1


def moods(folder: Path) -> str:
    files.write_jsonl(folder / "moods.jsonl", label_rows(20))
    return str(folder / "moods.jsonl")


@pytest.mark.parametrize("source", ["home/runs/old", "adapter", "merged"])
def test_it_answers_as_it_did_elsewhere_and_is_a_run_like_others(elsewhere, babbler, source, tmp_path):
    run = import_run(str(elsewhere / source), "mine", babbler)
    assert answers("mine") == json.loads((elsewhere / "answer.json").read_text())
    imported = run.config()["imported"]
    assert imported["source"] == Path(source).name and imported["base"] == (
        "" if source == "merged" else Path(babbler).name
    )
    assert imported["kind"] == ("run" if source.startswith("home") else source) and imported["sha256"]
    line = runs.overview(run)
    assert line["state"] == "finished" and run.damage() is None and runs.details(run)
    text = "".join(path.read_text() for path in run.path.rglob("*.json") if path.name != "tokenizer.json")
    assert str(elsewhere) not in text
    if source == "adapter":
        with pytest.raises(UserError, match="has no held-out rows; give data to evaluate on with --data"):
            evaluate("mine")
        scores = evaluate("mine", EvaluateConfig(data=moods(tmp_path), max_examples=4, max_new_tokens=4))
        assert scores["n"] == 4
        again = export("mine", tmp_path / "again", config=ExportConfig(verify=False))
        assert "imported from adapter" in (again.path / "README.md").read_text()
    report("mine", tmp_path / "report.html")


def test_a_run_keeps_its_rows_and_scores_and_leaves_what_is_that_homes(elsewhere, babbler):
    run_folder = elsewhere / "home" / "runs" / "old"
    files.write_json(run_folder / "pushes.json", {"repositories": {"you/yours": {}}})
    files.write_json(run_folder / "notes.json", {"display_name": "Ours", "notes": "good", "tags": ["a"]})
    run = import_run(str(run_folder), base=babbler)
    assert (
        run.name.startswith("old-imported-") and run.pushes() == {} and run.notes() == {"notes": "good", "tags": ["a"]}
    )
    assert len(run.examples("test")) == 10
    [evaluation] = run.evaluations()
    assert Path(run.scores(evaluation)["outputs"]) == run.path / "evaluations" / evaluation / "outputs.jsonl"
    assert len(run.metrics()) == len(runs.Run(run_folder).metrics())
    (run_folder / "data" / "test.jsonl").unlink()
    (run_folder / "data" / "test.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=r"can't be imported: data/test\.jsonl is missing"):
        import_run(str(run_folder), base=babbler)


def test_a_zip_of_an_export_and_a_taken_name(elsewhere, babbler):
    with zipfile.ZipFile(elsewhere / "lora.zip", "w") as archive:
        for path in (elsewhere / "adapter").iterdir():
            archive.write(path, f"lora/{path.name}")
        archive.writestr("../../../escaped.json", "{}")
    import_run(str(elsewhere / "lora.zip"), "mine", babbler)
    assert not list(elsewhere.parent.rglob("escaped.json")) and not list((runs.home() / "tmp").iterdir())
    with pytest.raises(UserError, match="There is a run named 'mine' already"):
        import_run(str(elsewhere / "adapter"), "mine", babbler)
    assert [path.name for path in (runs.home() / "runs").iterdir()] == ["mine"]


def spoil_rank(folder: Path) -> None:
    change(folder, r=8)


def spoil_layers(folder: Path) -> None:
    """One layer's matrices are called otherwise, as on another model: PEFT alone would only warn."""
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")  # fmt: skip


def spoil_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")


def spoil_unknown(folder: Path) -> None:
    change(folder, use_magic=True)


def spoil_code(folder: Path) -> None:
    change(folder, auto_mapping={"base_model_class": "Evil", "parent_library": "evil"})


def spoil_saved(folder: Path) -> None:
    change(folder, modules_to_save=["embed_tokens"])


def spoil_bias(folder: Path) -> None:
    change(folder, bias="all")


def spoil_beginning(folder: Path) -> None:
    change(folder, init_lora_weights="pissa_niter_4")


def spoil_header(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def change(folder: Path, **values) -> None:
    path = folder / "adapter_config.json"
    files.write_json(path, files.read_json(path) | values)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_rank, "doesn't fit"),
        (spoil_layers, "doesn't fit .* of its tensors are others there"),
        (spoil_pickle, "isn't in safetensors"),
        (spoil_unknown, "asks for use_magic, which PEFT doesn't know"),
        (spoil_code, "isn't plain LoRA"),
        (spoil_saved, "doesn't fit"),
        (spoil_bias, "isn't plain LoRA: it has bias all"),
        (spoil_beginning, "began as 'pissa_niter_4', which changes the base's own weights"),
        (spoil_header, "are damaged"),
    ],
)
def test_an_adapter_that_is_another_than_it_says_is_refused(elsewhere, babbler, spoil, says):
    spoil(elsewhere / "adapter")
    with pytest.raises(UserError, match=says) as refused:
        import_run(str(elsewhere / "adapter"), "mine", babbler)
    assert "\n" not in str(refused.value) and list((runs.home() / "runs").iterdir()) == []


def test_a_base_is_told_and_never_followed(elsewhere, babbler, monkeypatch):
    change(elsewhere / "adapter", base_model_name_or_path="evil/base")
    monkeypatch.setattr("sftdemo.model.download.find", lambda *_: pytest.fail("followed"))
    with pytest.raises(UserError, match="says that it was tuned from 'evil/base'; give --base with that model"):
        import_run(str(elsewhere / "adapter"))
    (elsewhere / "merged" / "README.md").unlink()
    with pytest.raises(UserError, match="doesn't say what it was tuned from"):
        import_run(str(elsewhere / "merged"))
    with pytest.raises(UserError, match="says that it was tuned from"):
        import_run(str(elsewhere / "home" / "runs" / "old"))


def test_what_is_no_model_is_one_line(elsewhere, babbler, tmp_path):
    (elsewhere / "empty").mkdir()
    (elsewhere / "gguf").mkdir()
    (elsewhere / "gguf" / "q8_0.gguf").touch()
    (elsewhere / "bad.zip").write_bytes(b"PK no zip")
    with zipfile.ZipFile(elsewhere / "both.zip", "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("a/b", "y")
    with zipfile.ZipFile(elsewhere / "long.zip", "w") as archive:
        archive.writestr("n" * 300, "x")
    with zipfile.ZipFile(elsewhere / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{}" * 400)
    with zipfile.ZipFile(elsewhere / "bomb.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("config.json", bytes(50_000_000))
    packed = bytearray((elsewhere / "packed.zip").read_bytes())
    packed[41:46] = b"\xff" * 5  # where the packed bytes begin
    (elsewhere / "packed.zip").write_bytes(packed)
    change_config = elsewhere / "merged" / "config.json"
    files.write_json(change_config, files.read_json(change_config) | {"hidden_size": 32})
    for source, says in {
        "empty": "holds no run, no adapter and no model",
        "gguf": "GGUF file, which isn't read back",
        "bad.zip": "is no ZIP that can be read",
        "both.zip": "is no ZIP that can be read",
        "long.zip": "is no ZIP that can be read",
        "packed.zip": "is no ZIP that can be read",
        "bomb.zip": "is no ZIP that can be read: only Deflate is read",
        "nothing": "There is no",
        "x" * 300: "There is no",
        "a\0b": "There is no",
        "merged": "isn't tuned from .*: hidden_size is 32",
    }.items():
        with pytest.raises(UserError, match=says):
            import_run(str(elsewhere / source), "mine", babbler)
    with pytest.raises(UserError, match="There is no '~nosuch/x'"):
        import_run("~nosuch/x", "mine", babbler)
    model = elsewhere / "home" / "runs" / "old" / "model"
    model.rename(elsewhere / "model")
    model.symlink_to(elsewhere / "model")
    with pytest.raises(UserError, match="is a run without a model"):
        import_run(str(elsewhere / "home" / "runs" / "old"), "mine", babbler)
    model.unlink()
    with pytest.raises(UserError, match="is a run without a model"):
        import_run(str(elsewhere / "home" / "runs" / "old"), "mine", babbler)
    assert list((runs.home() / "runs").iterdir()) == []


def test_a_tokenizer_that_the_base_does_not_know_is_refused(elsewhere, babbler):
    tokenizer = loading.tokenizer(elsewhere / "adapter")
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(elsewhere / "adapter")
    with pytest.raises(UserError, match=r"Its tokenizer has \d+ tokens"):
        import_run(str(elsewhere / "adapter"), "mine", babbler)
    tokenizer = loading.tokenizer(Path(babbler))
    tokenizer.chat_template = None
    for path in [*(elsewhere / "adapter").glob("*.jinja"), *(elsewhere / "adapter").glob("tokenizer*")]:
        path.unlink()
    tokenizer.save_pretrained(elsewhere / "adapter")
    with pytest.raises(UserError, match="has no chat template"):
        import_run(str(elsewhere / "adapter"), "mine", babbler)


def test_an_adapter_of_the_hub(elsewhere, babbler, monkeypatch):
    with serving() as server:
        held = {path.name: path.read_bytes() for path in (elsewhere / "adapter").iterdir()}
        server.repositories["models/me/moods"] = Repository(False, held)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        for name, value in {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HOME", str(elsewhere / "hf"))
        run = import_run("me/moods", base=babbler)
        merged = {path.name: path.read_bytes() for path in (elsewhere / "merged").iterdir()}
        card = b"---\nbase_model:\n- them/theirs\n---\n\xff"
        server.repositories["models/me/merged"] = Repository(False, merged | {"README.md": card})
        with pytest.raises(UserError, match="says that it was tuned from 'them/theirs'"):
            import_run("me/merged")
        assert run.config()["imported"]["revision"] == server.repositories["models/me/moods"].sha
    assert run.name.startswith("moods-imported-") and not any(
        path.suffix == ".png" for path in run.model_path.iterdir()
    )


def test_systems_come_with_their_answers_and_without_anybodys_address(elsewhere, babbler):
    folder = elsewhere / "home" / "runs" / "old"
    [evaluation] = runs.Run(folder).evaluations()
    path = folder / "evaluations" / evaluation / "scores.json"
    rows = len(runs.Run(folder).outputs(evaluation))
    names = ("majority", "linear", "copy", "api:m@https://them.example/v1", "file:/home/them/a.jsonl")
    systems = {
        name: {"key": "k", "answers": f"{evaluation}/systems/{name[:4]}.jsonl", "scores": {}, "difference": {}}
        | {"summary": {"en": "", "zh": ""}, "ms_per_answer": 1.0, "answered": 1.0}
        for name in names
    }
    systems["copy"]["answers"] = "../../../model/adapter_config.json"
    for name in names[1:]:
        files.write_jsonl(folder / "evaluations" / evaluation / "systems" / f"{name[:4]}.jsonl", [{"row": k, "answer": "a"} for k in range(rows)], parents=True)  # fmt: skip
    intervals = {name: {} for name in ("base", "tuned", *names)}
    files.write_json(path, files.read_json(path) | {"systems": systems, "intervals": intervals})
    run = import_run(str(folder), base=babbler)
    scores = run.scores(evaluation)
    assert list(scores["systems"]) == ["linear"] and list(scores["intervals"]) == ["base", "tuned", "linear"]
    assert len(answers_of(run, evaluation, "linear")) == rows and "them" not in path_text(run)


def path_text(run: runs.Run) -> str:
    return "".join(path.read_text() for path in (run.path / "evaluations").rglob("*.json"))


def test_a_full_disk_is_one_line_and_leaves_nothing(elsewhere, babbler, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr("sftdemo.model.foreign.shutil.copyfile", full)
    with pytest.raises(UserError, match="is full; make room"):
        import_run(str(elsewhere / "adapter"), "mine", babbler)
    assert list((runs.home() / "runs").iterdir()) == []


def test_an_adapter_with_a_scale_that_no_training_takes_is_imported(elsewhere, babbler):
    change(elsewhere / "adapter", lora_alpha=181.02)
    run = import_run(str(elsewhere / "adapter"), "mine", babbler)
    settings = run.config()["settings"]
    assert (settings["lora_r"], settings["lora_alpha"]) == (files.read_json(run.model_path / "adapter_config.json")["r"], 32)  # fmt: skip
