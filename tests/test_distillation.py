"""A student learns its teacher's probabilities, exactly as the plain formula says, in chunks; and with fewer layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import home_at, label_rows, on

from sftdemo import evaluate, files, runs, train
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.inference.merged import adapter_base, merged_model
from sftdemo.log import TO_LOG
from sftdemo.model import layer_dropping
from sftdemo.model.loading import load_base
from sftdemo.model.sizes import Model
from sftdemo.training import continual, kinds, loss, students, turns
from sftdemo.training.distillation import Teacher

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
KEEP = torch.tensor([[False, True, True, False, True, True, True, False]])
LABELS = torch.tensor([7, 8, 10, 11, 12])
WEIGHTS = torch.tensor([1.0, 1.0, 0.5, 2.0, 0.0])


def varied(tiny: str, seed: int) -> Any:
    """The tiny model with other weights."""
    model = load_base(Path(tiny), torch.float32)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.02 * torch.randn_like(weights)
    return model


def wanted(
    student: Any, teacher: Any, ratio: float, temperature: float, weights: torch.Tensor, smoothing: float
) -> Any:
    """Hinton's formula by torch's own functions, with all logits at once."""
    ours, theirs = (model(input_ids=IDS.to(model.device)).logits[KEEP.to(model.device)] for model in (student, teacher))
    divergence = torch.nn.functional.kl_div(
        (ours / temperature).log_softmax(-1), (theirs / temperature).softmax(-1).detach(), reduction="none"
    ).sum(-1)
    labels = torch.nn.functional.cross_entropy(
        ours, LABELS.to(ours.device), reduction="none", label_smoothing=smoothing
    )
    return ((ratio * temperature**2 * divergence + (1 - ratio) * labels) * weights.to(ours.device)).sum()


@pytest.mark.parametrize(("ratio", "temperature", "smoothing"), [(1.0, 2.0, 0.0), (0.3, 1.0, 0.0), (0.6, 3.0, 0.2)])
def test_the_loss_in_chunks_is_the_plain_one(tiny, monkeypatch, ratio, temperature, smoothing):
    student, teacher = varied(tiny, 1), varied(tiny, 2)
    total = wanted(student, teacher, ratio, temperature, WEIGHTS, smoothing)
    total.backward()
    gradients = {name: weights.grad.clone() for name, weights in student.named_parameters()}
    teach = Teacher(teacher.requires_grad_(False), TrainConfig(teacher="t", kd_ratio=ratio, kd_temperature=temperature))
    assert teach.head_alone and loss.enable(student, smoothing, None, teach.lesson)
    student.train()
    widths = []
    head = teacher.get_output_embeddings()
    head.register_forward_hook(lambda module, arguments, output: widths.append(len(arguments[0])))
    given = on(student, {"input_ids": IDS, "logits_to_keep": KEEP, "labels": LABELS, "weights": WEIGHTS})
    for rows, parts in ((5, [5]), (2, [2, 2, 1])):
        monkeypatch.setattr(loss, "LOGIT_FLOATS", loss.COPIES * rows * head.weight.shape[0])
        student.zero_grad()
        widths.clear()
        chunked = student(**given)
        chunked.backward()
        assert widths == parts, "the teacher's logits are never there for more tokens at once"
        torch.testing.assert_close(chunked, total.detach())
        for name, weights in student.named_parameters():
            torch.testing.assert_close(weights.grad, gradients[name], rtol=1e-4, atol=1e-5)
    student.eval()
    plain = wanted(student, teacher, 0.0, 1.0, WEIGHTS, 0.0)
    torch.testing.assert_close(student(**given), plain, msg="the validation loss is the labels' own")


def test_logits_that_come_whole_give_the_same(tiny, monkeypatch):
    """As of models that scale or cap them, on either side."""
    student, teacher = varied(tiny, 1), varied(tiny, 2)
    total = wanted(student, teacher, 0.7, 2.0, WEIGHTS, 0.0).detach()
    monkeypatch.setattr(loss, "head_alone", lambda model: False)
    config = TrainConfig(teacher="t", kd_ratio=0.7, kd_temperature=2.0)
    loss.enable(student, 0.0, None, Teacher(teacher, config).lesson)
    given = on(student, {"input_ids": IDS, "logits_to_keep": KEEP, "labels": LABELS, "weights": WEIGHTS})
    torch.testing.assert_close(student.train()(**given).detach(), total)


def test_a_layer_that_changes_nothing_is_the_first_to_go(tiny):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(tiny)
    config.num_hidden_layers, config.layer_types = 4, ["full_attention"] * 4
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.get_decoder().layers[2].get_submodule(name).weight.zero_()
    influence = layer_dropping.block_influence(model, [[5, 6, 7], [9, 8, 7, 6]])
    assert influence[2] == pytest.approx(0, abs=1e-6) and min(influence[:2]) > 1e-4
    assert layer_dropping.most_important(influence, 1) == [0, 1, 3]
    smaller = layer_dropping.with_layers(model, [0, 1, 3])
    assert smaller.config.num_hidden_layers == 3 and smaller.config.layer_types == ["full_attention"] * 3
    with torch.no_grad():
        torch.testing.assert_close(smaller(IDS).logits, model(IDS).logits)
    assert model.config.num_hidden_layers == 4, "the model itself stays as it was"
    with pytest.raises(UserError, match="its config doesn't say what each of them is"):
        real, layer_dropping._state = layer_dropping._state, lambda model, kept: real(model, [0, 1, 2])
        try:
            layer_dropping.with_layers(model, [0, 1, 3])
        finally:
            layer_dropping._state = real


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A home with a teacher `t`, and its student `s` that has one of its two layers."""
    path = tmp_path_factory.mktemp("students")
    file = path / "r.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)))
    with home_at(path / "home"):
        train(TrainConfig(data=str(file), model=tiny, name="t", epochs=2.0, learning_rate=3e-3))
        config = TrainConfig(teacher="t", drop_layers=1, method="full", name="s", learning_rate=1e-3, epochs=2.0)
        train(config)
    return path / "home"


@pytest.mark.slow
def test_a_student_is_a_run_of_its_own(taught: Path) -> None:
    with home_at(taught):
        student, teacher = runs.find("s"), runs.find("t")
        facts = student.config()["student"]
        assert (facts["teacher"], facts["lineage"]) == ("t", ["t"]) and len(facts["teacher_sha256"]) == 64
        assert len(facts["layers_kept"]) == 1 and len(facts["block_influence"]) == 2
        assert files.read_json(student.model_path / "config.json")["num_hidden_layers"] == 1
        assert student.config()["settings"]["data"] == teacher.config()["settings"]["data"]
        for split in ("train", "validation", "test"):
            assert student.examples(split) == teacher.examples(split)
        scores = evaluate("s", EvaluateConfig(against="run:t"))
        assert scores["bytes"]["tuned"] < scores["bytes"]["base"] == scores["systems"]["run:t"]["bytes"]
        status = student.status()
        assert status["eval_loss"] < status["first_eval_loss"], "healed"


@pytest.mark.slow
def test_nothing_of_the_student_changes_the_teacher(taught: Path) -> None:
    with home_at(taught):
        before = runs.find("t").model_path / "adapter_model.safetensors"
        digest = runs.find("s").config()["student"]["teacher_sha256"]
        assert before.is_file() and continual.weights_sha256(runs.find("t")) == digest
        whole = merged_model(runs.find("t"), adapter_base(runs.find("t")))
        assert len(whole.get_decoder().layers) == 2


@pytest.mark.slow
def test_a_student_has_room_for_its_teacher_and_the_edits_of_its_rows(taught: Path, home: Path, tiny: str) -> None:
    with home_at(taught):
        asked = students.complete(TrainConfig(teacher="t", drop_layers=1, method="full"))
        prepared = kinds.prepare(asked, TO_LOG, None, students.dataset(asked))
        whole = Model.read(Path(tiny))
        student = Model.read(runs.find("s").model_path)
        assert prepared.memory.weights == 4 * (whole.parameters + student.parameters)
        assert prepared.model.trained(asked) == student.parameters and prepared.model.layers == 1
        assert prepared.memory.peak >= 4 * (whole.parameters + student.parameters)
        of_a_student = students.complete(TrainConfig(teacher="s", model=tiny))
        assert kinds.prepare(of_a_student, TO_LOG, None, students.dataset(of_a_student)).model.layers == 2
    with home_at(home):
        teacher = runs.create("edited", "", {"settings": TrainConfig(data="d").to_json()})
        changed = {"action": "leave_out", "line": 1, "old": {"text": "a"}}
        files.write_jsonl(teacher.path / "data" / "edits.jsonl", [changed])
        gone = TrainConfig(data="d", teacher="edited", edits=str(home / "gone.jsonl"))
        run = turns.new_run(gone)
        students.keep_edits(teacher, run)
        assert list(files.read_jsonl(run.path / "data" / "edits.jsonl")) == [changed]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"teacher": "nobody"}, "nobody"),
        ({"drop_layers": 1}, "drop_layers is for a student; give its teacher, too"),
        ({"kd_ratio": 0.2}, "kd_ratio is for a student"),
        ({"teacher": "t", "drop_layers": 1}, "use method full"),
        ({"teacher": "t", "drop_layers": 2, "method": "full"}, r"has 2 layers; give 1 at most"),
        ({"teacher": "t", "data": "house_style"}, "data is 'house_style', and a student takes its teacher's"),
        ({"teacher": "t", "columns": "text=a"}, "columns is 'text=a', and a student takes its teacher's"),
        ({"teacher": "t", "drop_layers": 1, "method": "full", "model": "x/y"}, "model is 'x/y', and a student"),
    ],
)
def test_what_no_student_can_be_is_one_line(taught: Path, tiny: str, asked: dict[str, Any], problem: str) -> None:
    with home_at(taught):
        before = runs.list_runs()
        with pytest.raises((UserError, UsageError), match=problem):
            train(TrainConfig(**asked).check())
        assert len(runs.list_runs()) == len(before)
