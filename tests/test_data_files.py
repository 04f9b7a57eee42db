"""Files as people bring them: encodings, tables without a clean header, JSON with small faults, wrong names, workbooks."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftdemo.__main__ import main
from sftdemo.config.read import ReadConfig
from sftdemo.data import read
from sftdemo.data.files import encodings
from sftdemo.data.files.readers import SUFFIXES, read_table
from sftdemo.data.files.table import Table
from sftdemo.data.values.columns import Columns, guess
from sftdemo.errors import UsageError
from tests.test_data_fuzz import PIECES

PAIRS = [{"prompt": f"q {number}", "completion": f"a {number}"} for number in range(6)]
LINES = [json.dumps(pair) for pair in PAIRS]
MOODS = [{"text": "a b", "label": "x"}, {"text": "c d", "label": "y"}]


def table(name: str, content: str | bytes, **how: Any) -> Table:
    return read_table(name, content if isinstance(content, bytes) else content.encode(), config=ReadConfig(**how))


def values(found: Table) -> list[dict[str, Any]]:
    return [row.values for row in found.rows]


def said(found: Table) -> str:
    return "\n".join([*map(str, found.faults), *map(str, found.warnings), *found.notes])


# Encodings.
SENTENCES = {
    "cp949": "오늘 날씨가 정말 좋네요|배송이 너무 늦어서 실망했어요|직원분이 친절하게 설명해 주셨습니다|환불은 어떻게 하나요|음식이 맛있고 양도 많아요",
    "cp1251 koi8-r iso8859-5 cp866": "Сегодня очень хорошая погода|Доставка пришла слишком поздно|Продавец вежливо всё объяснил|Экран постоянно гаснет|Когда приедет автобус",
    "cp932 euc_jp iso2022_jp": "今日はとても天気がいいですね|配送が遅くてがっかりしました|店員さんが丁寧に説明してくれた|返金はどうすればいいですか|料理が美味しくて量も多い",
    "gb18030": "今天天气真不错|送货太慢了很失望|店员很耐心地讲解|怎么申请退款|菜很好吃分量也足",
    "big5": "今天天氣真不錯|送貨太慢了很失望|店員很有耐心地講解|怎麼申請退款|菜很好吃份量也足",
    "cp1252 iso8859-15 latin-1 mac_roman cp850": "Le café était très bon|La livraison est arrivée trop tard|L'écran s'éteint sans arrêt|Où est passé mon remboursement|À quelle heure passe le bus",
    "cp1250 iso8859-2 cp852": "Dzisiaj jest piękna pogoda|Przesyłka przyszła za późno|Ekran ciągle gaśnie|Dobra jakość za tę cenę|Może wkrótce, dziękuję",
    "cp1254": "Bugün hava çok güzel|Kargo çok geç geldi|Satıcı her şeyi açıkladı|Kesinlikle yine geleceğim|Yemekler çok lezzetli, teşekkürler",
    "cp1253": "Σήμερα ο καιρός είναι πολύ καλός|Το δέμα έφτασε πολύ αργά|Η οθόνη σβήνει συνέχεια|Η ταινία ήταν βαρετή|Το φαγητό είναι νόστιμο",
    "cp1255": "היום מזג האוויר יפה מאוד|המשלוח הגיע מאוחר מדי|המסך נכבה כל הזמן|איך מקבלים החזר כספי|האוכל טעים מאוד",
    "cp1256": "الطقس اليوم جميل جدا|وصلت الشحنة متأخرة للغاية|الشاشة تنطفئ باستمرار|كيف أسترد المال|الطعام لذيذ جدا",
    "cp874": "วันนี้อากาศดีมาก|ส่งของช้ามาก ผิดหวัง|หน้าจอดับบ่อย|ขอคืนเงินอย่างไร|อาหารอร่อยมาก",
    "cp1257": "Šiandien labai gražus oras|Siunta atėjo per vėlai|Tikrai dar sugrįšiu čia|Ekranas nuolat gęsta|Rūšis gera, ačiū",
    "utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be": "It is a lovely day, naïve|好的|It’s here|no|yes",
}
WRITTEN = [(name, text) for names, text in SENTENCES.items() for name in names.split()]


@pytest.mark.parametrize(("encoding", "text"), WRITTEN, ids=[name for name, _ in WRITTEN])
@pytest.mark.parametrize("count", [10, 400])
def test_a_table_in_any_encoding_is_read_and_its_encoding_told(encoding, text, count):
    sentences = text.split("|")
    rows = [{"text": sentences[number % 5], "label": "good" if number % 2 else "bad"} for number in range(count)]
    content = "text,label\r\n" + "".join(f'"{row["text"]}",{row["label"]}\r\n' for row in rows)
    found = table("a.csv", content.encode(encoding))
    assert (found.faults, found.warnings) == ([], [])
    assert values(found) == rows
    if encoding in ("utf-8", "utf-8-sig"):
        assert found.notes == []
    elif encoding.startswith(("utf", "iso2022")):
        assert found.notes[0].startswith("a.csv is read as ")
    else:
        (note,) = found.notes
        assert "isn't UTF-8; it is read as " in note and "--encoding" in note


def test_an_encoding_given_overrules():
    content = "text,label\ncafé,good\ndéjà,bad\nnoël,bad\n".encode("latin-1")
    assert values(table("a.csv", content, encoding="cp1251"))[0] == {"text": "cafй", "label": "good"}
    assert table("a.csv", content, encoding="cp1251").notes == []
    broken = table("a.csv", content, encoding="UTF-8")
    assert [fault.line for fault in broken.faults] == [2, 3, 4] and "isn't UTF-8" in said(broken)


@pytest.mark.parametrize("name", ["klingon", "rot13", "hex", "zip", "idna\x00", "undefined"])
def test_an_encoding_that_is_none_is_one_clear_line(name, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    with pytest.raises(UsageError, match="which isn't known; give one as utf-8"):
        read(tmp_path / "a.csv", encoding=name)
    assert main(["check", str(tmp_path / "a.csv"), "--encoding", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    ["text,label\na,x\né,y\nÿ,z\n".encode("latin-1"), "text,label\nnaïve idea,good\n".encode("latin-1")],
)
def test_two_plausible_encodings_are_a_question(text):
    found = table("a.csv", text)
    (fault,) = found.faults
    one, other = (word for word in fault.remedy.rstrip(".").split() if word in encodings.KNOWN)
    assert not found.rows and one != other
    assert table("a.csv", text, encoding=one).rows and table("a.csv", text, encoding=other).rows
    assert f"--encoding {one} or --encoding {other}" in fault.remedy and fault.problem.count("'") >= 4


WORDS = {
    "cp1252": ["It’s late", "a naïve idea", "only £5 left", "don’t – ever", "20°C", "jalapeño", "façade", "“so”"],
    "cp1251 koi8-r": ["Привет", "да"],
    "cp949": ["좋음", "네"],
    "cp932 euc_jp": ["はい", "東京"],
    "gb18030": ["好", "你好"],
    "big5": ["是", "你好"],
    "cp1250 iso8859-2": ["żółty", "Łódź"],
    "cp1255": ["שלום", "כן"],
    "cp1256": ["مرحبا", "نعم"],
    "cp874": ["สวัสดี", "ใช่"],
    "mac_roman cp850": ["schön", "¿no?"],
}


@pytest.mark.parametrize(
    ("encoding", "word"), [(name, word) for names, words in WORDS.items() for name in names.split() for word in words]
)
def test_one_word_is_read_rightly_or_asked_about(encoding, word):
    found = table("a.csv", f"text,label\n{word},x\n".encode(encoding))
    assert values(found) == [{"text": word, "label": "x"}] or "--encoding" in found.faults[0].remedy
    assert table("a.csv", f"text,label\n{word},x\n".encode(encoding), encoding=encoding).rows


@pytest.mark.parametrize("word", WORDS["cp1252"])
def test_a_stray_sign_in_english_is_no_question(word):
    lines = ["text,label", *["the bus was late again and nobody told us why,bad"] * 30, f"{word},good"]
    found = table("a.csv", "\n".join(lines).encode("cp1252"))
    assert values(found)[-1]["text"] == word and "read as cp1252" in said(found)


def test_utf8_with_broken_bytes_is_no_code_page():
    good = "".join(f"número {number} está aquí,sí\n" for number in range(20)).encode()
    found = table("a.csv", b"text,label\n" + good + b"caf\xe9,no\n" + good)
    assert [(fault.line, fault.problem) for fault in found.faults] == [(22, "Byte 4 of the line, 0xe9, isn't UTF-8.")]
    assert len(found.rows) == 40 and found.notes == []
    assert "isn't UTF-8" in said(table("a.csv", b"text,label\n" + good + b"est\xc3"))  # a file that was cut off


# Tables.
TABLES: list[tuple[str, str, list[dict[str, str]], str]] = [
    ("a.csv", "text;label\na, b;x\nc, d;y\n", [{"text": "a, b", "label": "x"}, {"text": "c, d", "label": "y"}], ""),
    ("a.csv", "text|label\na b|x\nc d|y\n", MOODS, ""),
    ("a.csv", "sep=;\r\ntext;label\r\na b;x\r\nc d;y\r\n", MOODS, ""),
    ("a.csv", "text,label\ra b,x\rc d,y\r", MOODS, ""),
    ("a.csv", "Report of May,\n,\ntext,label\na b,x\nc d,y\n,\n,\n", MOODS, "Blank rows skipped: 3."),
    ("a.csv", "text,label,,\na b,x,,\nc d,y,,\n", MOODS, "without a name or a value, which were skipped: 2."),
    ("a.csv", "text,label\na b,x,\nc d,y,,\n", MOODS, "surplus empty cells, which were skipped: 2."),
    ("a.csv", ",text,label\n0,a b,x\n1,c d,y\n", MOODS, "the first column only counts the rows"),
    ("a.csv", 'text,label\n"1",a b,x\n"2",c d,y\n', MOODS, "the first column only counts the rows"),  # as R writes
    ("a.csv", "text,label\na b,x\ntext,label\nc d,y\n", MOODS, "repeat the header, which were skipped: 1."),
    ("a.csv", "Unnamed: 0,text,label\n0,a b,x\n1,c d,y\n", MOODS, "the first column only counts the rows"),
    ("a.csv", 'text, label\n"a b", "x"\n"c d", "y"\n', MOODS, ""),
    ("a.csv", 'text,label\n"a \\"b\\" c",x\nc d,y\n', [{"text": 'a "b" c', "label": "x"}, MOODS[1]], "are escaped as"),
    ("a.csv", "text\na, b and c\nd\n", [{"text": "a, b and c"}, {"text": "d"}], ""),
    ("a.csv", "question,answer\na b c,answer\nd e,answer\nf g,no\nh,no\n", [
        {"question": "a b c", "answer": "answer"}, {"question": "d e", "answer": "answer"}, {"question": "f g", "answer": "no"},
        {"question": "h", "answer": "no"}], ""),
    ("a.csv", "text,label,text\na b,x,a b\nc d,y,c d\n", MOODS, "twice with the same values"),
    ("a.tsv", 'text\tlabel\n" a b\tx\nc d "\ty\n', [{"text": '" a b', "label": "x"}, {"text": 'c d "', "label": "y"}], "plain characters"),
    ("a.tsv", 'text\tlabel\n"a" b\tx\nc d\ty\n', [{"text": '"a" b', "label": "x"}, MOODS[1]], "plain characters"),
    ("a.tsv", 'text\tlabel\n"a b\tx\nc d\ty\n', [{"text": '"a b', "label": "x"}, MOODS[1]], "plain characters"),
    ("a.tsv", 'text\tlabel\n"a\nb"\tx\n"c ""d"""\ty\n', [{"text": "a\nb", "label": "x"}, {"text": 'c "d"', "label": "y"}], ""),
    ("a.csv", 'text,label\n"Dear Sir,\nthank you, bye\nMe",1\n"x\ny",0\nok,1\nfine,0\nhm,1\n', [
        {"text": "Dear Sir,\nthank you, bye\nMe", "label": "1"}, {"text": "x\ny", "label": "0"}, {"text": "ok", "label": "1"},
        {"text": "fine", "label": "0"}, {"text": "hm", "label": "1"}], ""),
    ("a.csv", "0,1\nthe film was great,1\nthe film was bad,0\nso so,1\nnot so,0\n", [
        {"0": "the film was great", "1": "1"}, {"0": "the film was bad", "1": "0"}, {"0": "so so", "1": "1"}, {"0": "not so", "1": "0"}], ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "rows", "note"), TABLES, ids=range(len(TABLES)))
def test_tables(name, content, rows, note):
    found = table(name, content)
    assert (found.faults, found.warnings) == ([], [])
    assert values(found) == rows
    assert note in said(found)


BARE = [("the bus is great", "pos"), ("the bus is late", "neg"), ("a good bus", "pos"), ("no bus at all", "neg")]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("mark", [",", "\t", ";"])
@pytest.mark.parametrize("labels", [("pos", "neg"), ("1", "0")])
def test_a_table_without_a_header_is_found(mark, swap, labels):
    rows = [{"text": text, "label": labels[label == "neg"]} for text, label in BARE]
    content = "".join(mark.join(list(row.values())[:: -1 if swap else 1]) + "\n" for row in rows)
    found = table("a.csv", content)
    assert values(found) == rows and found.faults == []
    assert "its first row is data" in said(found) and "--header yes" in said(found)
    assert len(table("a.csv", content, header="yes").rows) == 3
    declared = table("a.csv", content, header="no")
    assert values(declared) == rows and "without a header" in said(declared)


def test_columns_without_a_name_get_one_where_it_is_plain():
    rows = [
        ('"{at}","{n}","Mon Apr 06 22:19","NO_QUERY","user{n}","this is a bummer and I should have known {n} better"', "label column2 column3 column4 column5 text"),
        ("{at},Bears claw {n},Traders are seeing green again today for {n} hours", "label title text"),
        ("The mayor {n} spoke,A speech {n} came,{at}", "sentence1 sentence2 label"),
        ("{n},the bus {n} is late,neg{at}", "column1 text label"),
        ("the bus {n} is late,neg", "column1 column2"),
    ]  # fmt: skip
    for row, names in rows:
        found = table("a.csv", "".join(row.format(n=number, at=number % 2) + "\n" for number in range(20)))
        assert list(values(found)[0]) == names.split() and len(found.rows) == 20


def test_what_may_be_a_header_is_asked():
    content = "What is two plus two?,four\nWhat is three plus three?,six\n"
    found = table("a.csv", content)
    assert "--header no" in said(found)
    assert values(table("a.csv", content, header="no"))[0] == {"column1": "What is two plus two?", "column2": "four"}


def test_what_spilled_into_a_nameless_column_is_warned_of():
    found = table("a.csv", "v1,v2,,\nham,a b,,\nham,c d,,\nspam,win, now,\n")
    assert [(fault.line, "'column3' has no name" in fault.problem) for fault in found.warnings] == [(4, True)]
    assert values(found)[2] == {"v1": "spam", "v2": "win", "column3": " now"}


def test_the_header_row_can_be_named():
    content = "Report\nof,May\ntext,label\na b,x\nc d,y\n"
    assert values(table("a.csv", content, header="3")) == MOODS
    assert "No row begins in line 9" in said(table("a.csv", content, header="9"))
    with pytest.raises(UsageError, match="header is 'maybe'; give auto, yes, no"):
        ReadConfig(header="maybe").check()


def test_a_text_that_a_comma_cuts_in_every_row_is_no_name_of_it():
    found = table("a.csv", "text,label\nHello one, my friend,x\nHello two, my friend,y\n")
    assert not found.rows and [fault.problem for fault in found.faults] == 2 * ["The row has 3 cells, the header 2."]


SWALLOWED = 'text,label\ngood film,1\n" a tale,1\nbad film,0\nwhat is it ",0\nok film,1\nnot ok,0\n'


@pytest.mark.parametrize("content", [SWALLOWED, SWALLOWED.replace(",1", ",one").replace(",0", ",zero")])
def test_a_quote_that_swallows_rows_is_a_fault_that_names_them(content):
    found = table("a.csv", content)
    assert [(fault.line, fault.problem.split(":")[0]) for fault in found.faults] == [(3, "Lines 3 to 5 became one row")]
    assert [row.line for row in found.rows] == [2, 6, 7]


# JSON.
JSONS: list[tuple[str, str, str]] = [
    ("a.jsonl", "\n".join(json.dumps(pair, indent=2) for pair in PAIRS), ""),
    ("a.json", "\n".join(LINES), ""),
    ("a.jsonl", "".join(LINES), ""),
    ("a.jsonl", "".join(f"{line},\n" for line in LINES), ""),
    ("a.jsonl", "\n".join([LINES[0], *(f"{line}," for line in LINES[1:])]), "that end in a comma"),
    ("a.json", json.dumps(PAIRS[:2], indent=1) + "\n" + json.dumps(PAIRS[2:]), "2 lists one after another"),
    ("a.json", "[" + ",\n".join(LINES) + ",\n]", "surplus commas"),
    ("a.json", '// mine\n[\n{"prompt": "q 0", "completion": "a 0",}, /* one */\n' + ",\n".join(LINES[1:]) + "] // all", "comments"),
    ("a.jsonl", "# mine\n" + "\n".join(LINES), "comments, which were skipped: 1."),
    ("a.jsonl", "\n".join(map(str, PAIRS)), "Python's notation"),
    ("a.json", str(PAIRS), "Python's notation"),
    ("a.jsonl", "\x1e" + "\n\x1e".join(LINES), ""),
    ("a.json", json.dumps({"rows": PAIRS}), "those under 'rows'"),
    ("a.json", json.dumps({"version": 1, "data": PAIRS}, indent=1), ""),
    ("a.json", json.dumps({"features": [{"name": "prompt"}], "rows": [{"row_idx": at, "row": pair} for at, pair in enumerate(PAIRS)]}), ""),
    ("a.json", json.dumps({"columns": ["prompt", "completion"], "index": [], "data": [list(pair.values()) for pair in PAIRS]}), ""),
    ("a.json", json.dumps([["prompt", "completion"], *(list(pair.values()) for pair in PAIRS)]), ""),
    ("a.jsonl", "\n".join(map(json.dumps, [["prompt", "completion"], *(list(pair.values()) for pair in PAIRS)])), ""),
    ("a.json", json.dumps({"dataset": PAIRS, "info": {}}), "those under 'dataset'"),
    ("a.json", json.dumps({str(at): pair for at, pair in enumerate(PAIRS)}), "the 6 objects in it"),
    ("a.json", json.dumps({key: {str(at): pair[key] for at, pair in enumerate(PAIRS)} for key in PAIRS[0]}), "the 6 objects in it"),
    ("a.jsonl", "\n".join(map(json.dumps, LINES)), "JSON inside JSON text"),
    ("a.json", json.dumps(LINES), "JSON inside JSON text"),
    # Under the wrong name.
    ("a.csv", "\n".join(LINES), "it is JSON by its content"),
    ("a.txt", json.dumps(PAIRS, indent=1), "it is JSON by its content"),
    ("a.json", "prompt,completion\n" + "".join(f"q {at},a {at}\n" for at in range(6)), "a table by its content"),
    ("a.xlsx", "prompt\tcompletion\n" + "".join(f"q {at}\ta {at}\n" for at in range(6)), "text by its content"),
    ("a.parquet", "\n".join(LINES), "text by its content"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "note"), JSONS, ids=range(len(JSONS)))
def test_json_in_all_the_ways_it_is_written(name, content, note):
    found = table(name, content)
    assert (values(found), found.faults, found.warnings) == (PAIRS, [], [])
    assert note in said(found)


def test_what_only_the_layouts_understand_is_handed_on():
    for whole in (
        {"train": PAIRS, "test": PAIRS},
        {"prompt": ["a"], "completion": ["b"]},
        {"messages": [{"role": "user"}]},
    ):
        assert values(table("a.json", json.dumps(whole, indent=1))) == [whole]


def test_a_key_with_two_values_is_a_fault():
    found = table("a.jsonl", '{"text": "a", "label": "x", "text": "b"}\n{"text": "c", "label": "y", "label": "y"}\n')
    assert [(fault.line, fault.problem) for fault in found.faults] == [(1, "The row gives 'text' two values.")]
    assert values(found) == [{"text": "c", "label": "y"}]


ONE_SENTENCE = [
    ("a.jsonl", "".join(f'{{"a": {at}, "b"}}\n' for at in range(50))),
    ("a.jsonl", "".join('"just text"\n' for _ in range(50))),
    ("a.json", json.dumps(["text"] * 50)),
    ("a.jsonl", "Once upon a time\nthere was a king\nwho died\n"),
    ("a.txt", "Once upon a time, there\nwas a king\nwho died\n"),
    ("a.csv", "<!DOCTYPE html><html><body>404, not found</body></html>"),
    ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"),
    ("a.json", "<?xml version='1.0'?><a/>"),
    ("a.csv", b"%PDF-1.4 blah\n"),
    ("a.csv", b"\x80\x04\x95abc."),
    ("a.csv", bytes(range(256)) * 30),
    ("a.csv", "text,label\n" + "\x00" * 50 + "\n"),
    ("a.xlsx", b"PK\x03\x04 and no more"),
]


@pytest.mark.parametrize(("name", "content"), ONE_SENTENCE, ids=range(len(ONE_SENTENCE)))
def test_a_file_that_is_no_data_is_told_once(name, content):
    found = table(name, content)
    assert len(found.faults) == 1 and not found.rows


def test_a_nul_byte_is_the_line_s_fault():
    found = table("a.csv", b"text,label\na b,x\nc\x00,y\nc d,y\n")
    assert values(found) == MOODS and [fault.line for fault in found.faults] == [3]


def test_archives_are_known_by_their_content(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("rows.jsonl", "\n".join(LINES))
    for name, content in (
        ("a.jsonl", gzip.compress("\n".join(LINES).encode())),
        ("b.gz", gzip.compress("\n".join(LINES).encode())),
        ("c.csv", packed.getvalue()),
    ):
        (tmp_path / name).write_bytes(content)
        dataset = read(tmp_path / name)
        assert (dataset.examples, dataset.faults) == (6, [])


# Anything.
@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=40),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp949", "cp1252", "utf-32-le"]),
    suffix=st.sampled_from(SUFFIXES),
    how=st.fixed_dictionaries(
        {"header": st.sampled_from(["auto", "yes", "no", "2"]), "encoding": st.sampled_from([None, "cp1251", "utf-16", "utf-7"])}
    ),
)  # fmt: skip
def test_any_file_gives_rows_or_faults(pieces, encoding, suffix, how):
    found = table(f"a{suffix}", "".join(pieces).encode(encoding, "replace"), **how)
    assert found.rows or found.faults
    assert all(isinstance(row.values, dict) for row in found.rows)


def test_reading_stays_linear():
    wide = ",".join(f"c{at}" for at in range(40_000)) + "\n" + ",".join("x" * 40_000) + "\n"
    nameless = "a" + "," * 39_999 + "\n" + ",".join("x" * 40_000) + "\n"
    blank = "text,label\na b,x\n" + "\n" * 300_000
    deep = "[" * 200_000
    comments = "[" + "/*" * 200_000
    start = time.process_time()
    for name, content in (
        ("a.csv", wide),
        ("a.csv", nameless),
        ("a.csv", blank),
        ("a.json", deep),
        ("a.json", comments),
    ):
        assert table(name, content)
    assert time.process_time() - start < 15


@pytest.mark.parametrize(
    "line", ["[12.10.26, 18:{:02}:07] Anna: When do you open?", "10/12/26, 18:{:02} - Shop: At nine, every day."]
)
def test_an_exported_chat_is_told_as_what_it_is(line):
    found = table("chat.txt", "\n".join(line.format(minute) for minute in range(30)))
    assert not found.rows and "as in an exported chat" in said(found) and "prompt and completion" in said(found)


@pytest.mark.parametrize("mark", ["\t", ";", ","])
def test_a_table_that_begins_with_times_is_no_chat(mark):
    lines = [mark.join([f"2026-01-10 10:{minute}", f"Great: the {minute}", "good"]) for minute in range(10, 40)]
    found = table("form.txt", "\n".join([mark.join(["at", "text", "label"]), *lines]))
    assert not found.faults and len(found.rows) == 30


@pytest.mark.parametrize(
    ("head", "row", "warned"),
    [
        ("Timestamp,What did you like about your stay with us?", "2026/01/10 0:00:07 PM,The pool number {}", False),
        ("Nr.,Frage", "{},Wo ist Paket {}?", False),
        ("What a lovely stay that was with you.,fine", "The pool was cold in week {},so-so {}", True),
    ],
)
def test_a_header_in_words_above_numbers_or_dates_is_none_that_may_be_data(head, row, warned):
    found = table("form.csv", "\n".join([head, *(row.format(number, number) for number in range(20))]))
    assert ("may be data" in said(found)) == warned and len(found.rows) == 20


def test_dates_are_neither_prompt_nor_answer():
    rows = [(f"1{i % 3}.10.2026", f"Die Tür von Gerät {i} schließt nicht", ("Lob", "Frage")[i % 2]) for i in range(40)]
    written = "\n".join(["Datum;Kundentext;Kategorie", *map(";".join, rows)])
    columns = Columns(table("kunden.csv", written.encode("cp1252"), encoding="cp1252").rows)
    assert guess(columns, ["Datum", "Kundentext", "Kategorie"]) == {"text": "Kundentext", "label": "Kategorie"}
