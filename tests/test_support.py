"""Models that can't be used are refused in one line, before anything is downloaded or trained."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from families import FAMILIES

from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.model import download, support
from sftdemo.training.train import train

REFUSED = {
    "rwkv": "in a way of its own",
    "xlstm": "in a way of its own",
    "recurrent_gemma": "in a way of its own",
    "t5": "train it with --task seq2seq",
    "pegasus": "train it with --task seq2seq",
    "bert": "isn't a decoder",
    "mistral3": "isn't a decoder",
    "brand-new": "doesn't know",
}


def config(folder, kind):
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": kind, "auto_map": {"AutoModelForCausalLM": "modeling.Own"}}))
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_of_another_kind_is_refused_with_the_reason(kind, tmp_path):
    with pytest.raises(UserError) as refused:
        support.check(config(tmp_path / "model", kind), "owner/name")
    said = str(refused.value)
    assert "owner/name" in said and repr(kind) in said and REFUSED[kind] in said and "\n" not in said


@pytest.mark.parametrize("kind", ["fnet", "perceiver"])
def test_an_encoder_that_takes_no_mask_of_padding_labels_nothing(kind, tmp_path):
    with pytest.raises(UserError, match="can't be told which tokens are padding"):
        support.check(config(tmp_path / "model", kind), "owner/name", "classification")
    for other in ("bert", "funnel"):
        support.check(config(tmp_path / "model", other), "owner/name", "classification")


def test_every_family_that_is_tested_is_taken(tmp_path):
    for kind in {kind for kind, _ in FAMILIES.values()}:
        support.check(config(tmp_path / "model", kind), "owner/name")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_config_that_is_none_is_said(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.json of owner/name"):
        support.check(path, "owner/name")


def test_nothing_is_downloaded(monkeypatch, home, tmp_path):
    import huggingface_hub

    fetched = []
    files = [SimpleNamespace(rfilename=name, size=9) for name in ("config.json", "model.safetensors")]
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files, sha="main")
    )

    def fetch(hub_id, revision, folder, names):
        fetched.extend(names)
        config(folder, "rwkv")

    monkeypatch.setattr(download, "_fetch", fetch)
    with pytest.raises(UserError, match="'rwkv'"):
        download.find("owner/name")
    assert fetched == ["config.json"]


def test_nothing_is_trained(labelled, tmp_path, tokenizer, home):
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    config(folder, "rwkv")
    with pytest.raises(UserError, match="'rwkv'"):
        train(TrainConfig(data=labelled, model=str(folder)))
    assert not (home / "runs").exists()
