"""Token by token: probabilities are the model's own, forgetting is measured on both sides, and shown safely."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from sftdemo.encoding.encode import answer_ids, encode_prompt
from sftdemo.errors import UserError
from sftdemo.evaluation.answer_metrics import holds_rows
from sftdemo.inference.adapters import route_adapters
from sftdemo.inference.request import Side
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.model.loading import load_base
from sftdemo.system.compute import device
from sftdemo.verbs import forgetting

ASKED = [{"role": "user", "content": "the film was good and sad"}]


@pytest.fixture(scope="module")
def pair(tiny, tokenizer, tmp_path_factory) -> SideBySide:
    torch.manual_seed(1)
    model = get_peft_model(
        load_base(Path(tiny), torch.float32), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    loaded = PeftModel.from_pretrained(load_base(Path(tiny), torch.float32), str(folder))
    rows = route_adapters(loaded, ["default"], torch.float32)
    return SideBySide(tokenizer, [Side(loaded.get_base_model().eval(), ("base", "tuned"), rows)])


def test_probabilities_are_the_base_models_own(pair, tiny):
    found = pair.explain(ASKED, "good and sad")
    ids, prompt = answer_ids(pair.tokenizer, ASKED, "good and sad"), encode_prompt(pair.tokenizer, ASKED)
    with torch.inference_mode():
        ids_of_both = torch.tensor([prompt + ids], device=device())
        logits = load_base(Path(tiny), torch.float32).eval()(ids_of_both).logits[0].cpu()
    expected = torch.softmax(logits[len(prompt) - 1 : -1], -1)[range(len(ids)), ids].tolist()
    assert [one["probability"] for one in found["base"]] == pytest.approx(expected, rel=1e-3)
    assert "".join(one["token"] for one in found["tuned"]).startswith("good and sad")
    assert found["base"] != found["tuned"] and len(found["base"]) == len(found["tuned"]) == len(ids)
    for one in found["base"]:
        shares = [share for _, share in one["alternatives"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) <= 1 + 1e-6
        assert one["probability"] <= shares[0] + 1e-6


def test_an_answer_too_long_for_the_model_is_refused(pair):
    with pytest.raises(UserError, match="tokens and the model takes 512"):
        pair.explain(ASKED, "word " * 600)


@pytest.mark.slow
def test_forgetting_is_asked_of_both_and_said(pair):
    rows = forgetting.ask(pair, batch_size=20)
    assert len(rows) == 40 and all(row["base_nll"] > 0 and row["tuned_nll"] > 0 for row in rows)
    alone = pair.explain(rows[3]["messages"], "The largest ocean on Earth is the Pacific Ocean.")
    nats = -torch.tensor([one["probability"] for one in alone["base"]]).log().sum().item()
    assert rows[3]["base_nll"] == pytest.approx(nats, rel=1e-3)
    found = forgetting.judge(rows)
    assert found["n"] == 40 and found["difference"]["perplexity"]["delta"] != 0
    assert found == forgetting.judge(rows)


def judged(base: str, tuned: str, worse: float) -> dict:
    rows = [
        {"kind": "question", "references": ["Paris"], "base": base, "tuned": tuned, "base_nll": 5.0 + k % 3}
        | {"tuned_nll": (5.0 + k % 3) * worse, "answer_tokens": 4}
        for k in range(40)
    ]
    return forgetting.judge(rows)


def test_a_clear_fall_is_a_warning_and_a_rise_is_none():
    lost = judged("It is Paris.", "positive", 1.0)
    assert lost["forgotten"] and "100 % → 0 %" in lost["summary"]["en"] and "遗忘" in lost["summary"]["zh"]
    assert judged("It is Paris.", "Paris!", 1.6)["forgotten"]
    same = judged("It is Paris.", "Paris!", 1.0)
    assert not same["forgotten"] and same["summary"]["en"].startswith("No clear loss on 40 general questions")
    assert not judged("positive", "Paris", 0.5)["forgotten"]


@pytest.mark.parametrize(
    ("text", "found"), [("It's Paris.", 1), ("Comparison", 0), ("New York City!", 1), ("York, New", 0)]
)
def test_a_right_answer_holds_the_words_in_order(text, found):
    assert holds_rows([text], [["Paris", "new york"]]) == [found]


def test_tokens_are_shown_safely(pair):
    pytest.importorskip("gradio")
    from sftdemo.ui.parts import html
    from sftdemo.ui.tabs import outputs as outputs_view

    token = {"token": "<b>", "probability": 0.03, "alternatives": [["${x}", 0.9], ["<b>", 0.03]]}
    shown = html.tokens([token])
    assert "<b>" not in shown.replace("<b>90.0", "").replace("<b>3.0", "") and "${" not in shown
    assert "surprised" in shown and "3.0 %" in shown
    for lang in ("en", "zh"):
        page = outputs_view.explained(pair.explain(ASKED, "good"), "tuned", lang)
        assert page.count('class="tok ') == 2 * len(answer_ids(pair.tokenizer, ASKED, "good"))
    assert html.against("a red cat", "a blue cat") == "a <del>red </del><ins>blue </ins>cat"
    assert html.against("我爱猫", "我很爱猫") == "我<ins>很</ins>爱猫"
