"""Known values of the engines, driven through our functions; the vectors name their source."""

import json
import random
from pathlib import Path

import pytest

from sftdemo.errors import UsageError, UserError
from sftdemo.evaluation import metrics

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"

HYPOTHESES = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]
ROMANIAN = "Producția de zahăr primă va fi exprimată în ceea ce privește zahărul alb;"
ROMANIAN_REFERENCE = "producţia de zahăr brut se exprimă în zahăr alb;"
CHINESE = ["我爱北京天安门。", "今天天气很好，我们去公园吧。"]
CHINESE_REFERENCES = [["我爱北京的天安门。"], ["今天天气不错，我们去公园吧。"]]
README = [
    "The relationship between cats and dogs is not exactly friendly.",
    "a good bookshop is just a genteel black hole that knows how to read.",
]
README_REFERENCES = [
    ["The relationship between dogs and cats is not exactly friendly."],
    ["A good bookshop is just a genteel Black Hole that knows how to read."],
]


def golden(name):
    path = GOLDEN / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: the golden vectors are not on this machine")
    return json.loads(path.read_text(encoding="utf-8"))


def bleu(predictions, references, **options):
    return metrics.bleu(predictions=predictions, references=references, **options)["bleu"]


def chrf(prediction, reference, **options):
    predictions, references = ([text] if isinstance(text, str) else text for text in (prediction, reference))
    return metrics.chrf(predictions=predictions, references=[[text] for text in references], **options)["chrf"]


def overlap(prediction, references, kind):
    return metrics.rouge_rows([prediction], [references], [kind])[0][kind]


# The golden files


def test_all_sacrebleu_cases():
    for case in golden("sacrebleu_cases.json"):
        rows = [list(texts) for texts in zip(*case["refs"], strict=True)]
        options = dict(case["options"])
        if case["metric"] == "BLEU":
            tokenizer = options.pop("tokenize", "13a")
            found = bleu(case["hyps"], rows, tokenizer=tokenizer, **options)
        elif case["metric"] == "TER":
            found = metrics.ter(predictions=case["hyps"], references=rows, **options)["ter"]
        elif case["metric"] == "chrF2-sentence":
            found = metrics.chrf(predictions=case["hyps"], references=rows, eps_smoothing=True)["chrf"]
        else:
            # The file drops the options that upstream's tests pass to all: beta 3, and epsilon smoothing in test_cases.
            options |= {"beta": 3, "eps_smoothing": case["source"].endswith("test_cases")}
            found = metrics.chrf(predictions=case["hyps"], references=rows, **options)["chrf"]
        assert found == pytest.approx(case["score"], abs=2e-4), case


def test_all_rouge_cases():
    cases = [case for case in golden("rouge155_cases.json") if not case["stemmer"]]
    assert cases
    for case in cases:
        found = overlap(case["prediction"], [case["target"]], case["rouge"])
        field = "f" if case["field"] == "fmeasure" else case["field"]
        assert getattr(found, field) / 100 == pytest.approx(case["value"], abs=1e-5), case


# BLEU


def test_bleu_of_the_corpus_of_sacrebleu():
    assert bleu(HYPOTHESES, REFERENCES) == pytest.approx(48.530827, abs=1e-6)
    assert bleu(HYPOTHESES, REFERENCES, tokenizer="none") == pytest.approx(49.1919566, abs=1e-6)
    assert bleu(HYPOTHESES, REFERENCES, tokenizer="intl") == pytest.approx(43.91623493, abs=1e-6)
    assert bleu(HYPOTHESES, REFERENCES, language="zh") == pytest.approx(48.530827, abs=1e-6)
    assert bleu(["", "", ""], REFERENCES) == 0.0


@pytest.mark.parametrize(("order", "score"), [(1, 77.65), (2, 60.50), (3, 53.93), (5, 46.14), (6, 43.28)])
def test_bleu_of_other_orders(order, score):
    assert bleu(HYPOTHESES, REFERENCES, max_ngram_order=order) == pytest.approx(score, abs=0.005)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("this is a fest", "this is a test", 22.3606797749979),
        ("test", "a test", 36.78794411714425),
        ("a little test", "a test", 3.218297948685433),
        ("this is a cat", "okay thanks", 0.0),
    ],
)
def test_raw_bleu(prediction, reference, score):
    options = {"tokenizer": "none", "smooth_method": "floor", "smooth_value": 0.01, "effective_order": True}
    assert bleu([prediction], [[reference]], max_ngram_order=4, **options) == pytest.approx(score, abs=1e-9)


def test_raw_bleu_counts():
    predictions, references = ["am I am a character sequence"], [["I am a symbol string sequence a a"]]
    options = {"tokenizer": "none", "smooth_method": "floor", "effective_order": True}
    assert bleu(predictions, references, smooth_value=0.1, **options) == pytest.approx(15.55722182, abs=1e-7)
    assert bleu(predictions, references, smooth_value=0.0, **options) == 0.0
    score = metrics.bleu_engine(references, **options).corpus_score(predictions, metrics.transposed(references))
    assert (score.counts, score.totals) == ([4, 2, 1, 0], [6, 5, 4, 3])


def test_sentence_bleu():
    def score(**options):
        return metrics.sentence_bleu(ROMANIAN, [ROMANIAN_REFERENCE], **options)

    assert score() == pytest.approx(8.493, abs=1e-3)
    assert score(smooth_method="floor", smooth_value=0.5) == pytest.approx(10.10, abs=5e-3)
    assert score(smooth_method="add-k", smooth_value=2) == pytest.approx(21.389, abs=1e-3)
    assert score(tokenizer="char") == pytest.approx(40.8759, abs=1e-3)
    assert score(tokenizer="char", lowercase=True) == pytest.approx(42.0267, abs=1e-3)


@pytest.mark.parametrize("smoothing", ["exp", "floor", "add-k", "none"])
def test_nothing_in_common_is_zero(smoothing):
    assert metrics.sentence_bleu("this is a cat", ["okay thanks"], smooth_method=smoothing) == 0.0


def test_bleu_of_the_evaluate_readme():
    predictions = ["hello there general kenobi", "on our way to ankh morpork"]
    references = [["hello there general kenobi", "hello there !"], ["goodbye ankh morpork", "ankh morpork"]]
    assert bleu(predictions, references) == pytest.approx(39.76353643835252, abs=1e-9)


def test_chinese_bleu():
    found = metrics.bleu(predictions=CHINESE, references=CHINESE_REFERENCES)
    assert found["bleu"] == pytest.approx(67.050706, abs=1e-6)
    assert found["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:")
    assert bleu(CHINESE, CHINESE_REFERENCES, language="en") == 0.0
    assert bleu(CHINESE, CHINESE_REFERENCES, tokenizer="intl") == pytest.approx(53.728497, abs=1e-6)


@pytest.mark.parametrize("answers", [["yes", "no"], ["你好", "是"], ["turn on", "the light off"]])
def test_perfect_short_answers_score_100(answers):
    found = metrics.bleu(predictions=answers, references=[[answer] for answer in answers])
    assert found["bleu"] == pytest.approx(100) and found["bleu"] <= 100
    assert "|order:" in found["signature"]
    assert all(metrics.sentence_bleu(answer, [answer]) == pytest.approx(100) for answer in answers)


def test_one_long_reference_keeps_sacrebleus_defaults():
    found = metrics.bleu(predictions=["yes", "no"], references=[["yes"], ["no, I do not"]])
    assert found["bleu"] == 0.0 and "order" not in found["signature"]


def test_references_may_vary_in_number():
    found = metrics.bleu(predictions=["a b c d", "e f g h"], references=[["a b c d"], ["x", "e f g h"]])
    assert found["bleu"] == pytest.approx(100) and found["signature"].startswith("nrefs:var|")


# chrF and TER


def test_chrf_vectors():
    epsilon = {"beta": 3, "eps_smoothing": True}
    assert chrf("aa", "ab", **epsilon) == pytest.approx(8.3333, abs=1e-4)
    assert chrf("a b c", "abc", **epsilon) == pytest.approx(50.0)
    assert chrf("a", "a", **epsilon) == pytest.approx(16.6667, abs=1e-4)
    assert chrf("a", "a", beta=3) == 100
    assert chrf("aa", "ab", beta=3) == 25
    assert chrf(["a", "b"], ["a", "c"], beta=3) == 50
    prediction = (
        " risk assessment must be made of those who are qualified and expertise in the sector - these are the "
        "scientists ."
    )
    reference = (
        "risk assessment has to be undertaken by those who are qualified and expert in that area - that is the "
        "scientists ."
    )
    assert chrf(prediction, reference, **epsilon) == pytest.approx(63.361730, abs=1e-5)
    czech = (
        "Lapali po dechu, jejich životy skončily dřív, než skutečně začaly.",
        "Lapali po dechu a pak jejich život skončil - dřív, než skutečně mohl začít, připomněli.",
    )
    assert chrf(*czech, eps_smoothing=True) == pytest.approx(57.15704367, abs=1e-7)


def test_chrf_of_the_evaluate_readme():
    def score(**options):
        return metrics.chrf(predictions=README, references=README_REFERENCES, **options)

    assert score()["chrf"] == pytest.approx(84.64214891738334, abs=1e-9)
    assert score(word_order=2)["chrf"] == pytest.approx(82.87263732906315, abs=1e-9)
    assert score(word_order=2, lowercase=True)["chrf"] == pytest.approx(92.12853119829202, abs=1e-9)
    assert "nc:6|nw:2" in score(word_order=2)["signature"]


def test_chinese_chrf():
    found = metrics.chrf(predictions=CHINESE, references=CHINESE_REFERENCES)
    assert found["chrf"] == pytest.approx(54.426836, abs=1e-6)


def test_ter():
    assert metrics.ter(predictions=["d e f g h a b c"], references=[["a b c d e f g h"]])["ter"] == 12.5
    found = metrics.ter(predictions=["我爱北京"], references=[["我爱南京"]])
    assert found["ter"] == 25 and "asian:yes" in found["signature"]


# ROUGE


def test_rouge_vectors():
    reference = ["testing one two"]
    assert overlap("testing", reference, "rouge1") == pytest.approx((100, 100 / 3, 50))
    assert overlap("testing one", reference, "rouge2") == pytest.approx((100, 50, 200 / 3))
    for prediction in ("testing one", "testing two"):
        assert overlap(prediction, reference, "rougeL") == pytest.approx((100, 200 / 3, 80))
    several = ["first text", "first something"]
    assert [overlap("text first", several, kind).f for kind in metrics.ROUGE_KINDS] == [100, 0, 50]
    lines = overlap("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"], "rougeLsum")
    assert lines == pytest.approx((40, 80, 53.3333), abs=1e-4)
    for empty in ("", "/"):
        assert all(overlap(empty, reference, kind) == (0, 0, 0) for kind in (*metrics.ROUGE_KINDS, "rougeLsum"))


def test_rouge_is_the_plain_mean():
    found = metrics.rouge(predictions=["hello goodbye", "ankh morpork"], references=[["goodbye"], ["general kenobi"]])
    assert found["rouge1"] == pytest.approx(100 / 3)
    assert "stem:no" in found["signature"]


def test_chinese_rouge():
    first, second = metrics.rouge_rows(CHINESE, CHINESE_REFERENCES)
    assert [first[kind].f for kind in metrics.ROUGE_KINDS] == pytest.approx([93.3333, 76.9231, 93.3333], abs=1e-4)
    assert [second[kind].f for kind in metrics.ROUGE_KINDS] == pytest.approx([83.3333, 72.7273, 83.3333], abs=1e-4)


def test_chinese_sentences_are_swapped_without_loss_for_lsum():
    prediction, reference = "今天很好。我们走吧！", "我们走吧！今天很好。"
    assert overlap(prediction, [reference], "rougeLsum").f == 100
    assert overlap(prediction, [reference], "rougeL").f == 50


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World-2!", ["hello", "world", "2"]),
        ("我爱Python 3.11。", ["我", "爱", "python", "3", "11"]),
        ("L'été à Cristóbal", ["l", "été", "à", "cristóbal"]),
        ("Caf\u0065\u0301", ["café"]),
        ("Привет, МИР", ["привет", "мир"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("हिन्दी", ["हिन्दी"]),
        ("snake_case", ["snake", "case"]),
        ("", []),
    ],
)
def test_tokenizer(text, tokens):
    assert metrics.Tokenizer().tokenize(text) == tokens


def test_ascii_rouge_is_rouge_scores_own():
    from rouge_score.rouge_scorer import RougeScorer

    draw = random.Random(7)
    words = ["running", "run", "runs", "cats", "cat's", "the", "a_b", "3.5", "–", "Ends.\n"]
    kinds = [*metrics.ROUGE_KINDS, "rougeLsum"]
    engine = RougeScorer(kinds, use_stemmer=False)
    for _ in range(60):
        prediction, reference = (
            " ".join(draw.choices(words, k=draw.randrange(30))).replace("–", "-") for _ in range(2)
        )
        ours = metrics.rouge_rows([prediction], [[reference]], kinds)[0]
        for kind, score in engine.score(reference, prediction).items():
            assert ours[kind].f == pytest.approx(100 * score.fmeasure), (kind, prediction, reference)


# Language


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["The cat sat on the mat."], "en"),
        (["我爱北京天安门。"], "zh"),
        (["用 Python 的 list 排序"], "zh"),
        (["The word 好 means good, and it is used in many other words of the language."], "en"),
        (["Bonjour à tous"], "en"),
        (["안녕하세요 세계"], "en"),
        (["", "123 ..."], "en"),
        (["ฉันชอบแมว"], "th"),
        (["ใช้ Python เรียงรายการ"], "th"),
        (["The word แมว means cat, and it is used in many other words of the language."], "en"),
        (["ຂ້ອຍມັກແມວ"], "lo"),
        (["ខ្ញុំស្រលាញ់ឆ្មា"], "km"),
        (["ကျွန်တော် ကြောင်ကို ချစ်တယ်"], "my"),
        (["मुझे बिल्ली पसंद है"], "en"),
        ([], "en"),
    ],
)
def test_detect_language(texts, language):
    assert metrics.detect_language(texts) == language


# Thai, Lao, Khmer and Burmese: a character is a letter with its marks


CATS_AND_DOGS = {
    "th": ("ฉันชอบแมว", "ฉันชอบหมา"),  # ฉั น ช อ บ แ ม ว against ฉั น ช อ บ ห ม า: 6 of 8 in common, in order
    "lo": ("ຂ້ອຍມັກແມວ", "ຂ້ອຍມັກໝາ"),
    "km": ("ខ្ញុំស្រលាញ់ឆ្មា", "ខ្ញុំស្រលាញ់ឆ្កែ"),
    "my": ("ကျွန်တော်ကြောင်ကိုချစ်တယ်", "ကျွန်တော်ခွေးကိုချစ်တယ်"),
}


@pytest.mark.parametrize("language", CATS_AND_DOGS)
def test_writing_without_spaces_is_counted_by_the_character(language):
    cat, dog = CATS_AND_DOGS[language]
    for score in (overlap(cat, [dog], "rouge1").f, overlap(cat, [dog], "rougeL").f, bleu([cat], [[dog]])):
        assert 20 < score < 100
    assert overlap(cat, [cat], "rouge2").f == pytest.approx(bleu([cat], [[cat]])) == 100
    found = metrics.bleu(predictions=[cat], references=[[dog]])
    assert "tok:char" in found["signature"]
    assert 0 < metrics.ter(predictions=[cat], references=[[dog]])["ter"] < 100
    assert metrics.ter(predictions=[cat], references=[[cat]])["ter"] == 0


def test_thai_by_hand():
    cat, dog = CATS_AND_DOGS["th"]
    assert overlap(cat, [dog], "rouge1").f == overlap(cat, [dog], "rougeL").f == 75
    assert overlap("ก่า", ["ข่า"], "rouge1").f == 50  # า, and not the tone mark, which is no word
    assert overlap("๑๒ cats", ["๑๒ dogs"], "rouge1").f == 50  # digits are a number, as everywhere
    found = metrics.ter(predictions=[cat], references=[[dog]])
    assert found["ter"] == pytest.approx(100 * 2 / 8) and found["signature"].startswith("nrefs:1")
    assert "characters:th" in found["signature"]


# Answers and labels


def test_exact_match():
    predictions = ["cat?", "theater", "yelling", "agent"]
    references = [["the cat"], ["theater"], ["YELLING"], ["agent007"]]
    assert metrics.exact_match(predictions=predictions, references=references)["exact_match"] == 0.25
    assert metrics.exact(" a\n b ", ["a b"]) == 1
    assert metrics.exact("ＡＢＣ", ["ABC"]) == 1
    assert metrics.exact("A", ["a"]) == 0
    assert metrics.exact("two", ["one", "two"]) == 1


# Traps


@pytest.mark.parametrize("function", [metrics.bleu, metrics.chrf, metrics.ter, metrics.rouge, metrics.exact_match])
@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        (["a b c d"], ["a b c d"], "give a list of at least one text"),
        (["a", "b"], [["a"]], "2 predictions but 1 list"),
        (["a"], [[]], "at least one text"),
        ([], [], "no rows"),
    ],
)
def test_what_the_engines_would_take_for_something_else(function, predictions, references, words):
    with pytest.raises(UserError, match=words):
        function(predictions=predictions, references=references)


def test_unknown_settings_name_the_choices():
    with pytest.raises(UsageError, match="13a, zh, intl, char, none"):
        bleu(["a"], [["a"]], tokenizer="spm")
    with pytest.raises(UsageError, match="auto, en, zh"):
        bleu(["a"], [["a"]], language="fr")
