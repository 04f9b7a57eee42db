"""Which encoding bytes that aren't Unicode are in: chardet's statistics, and whether the text they give could be written."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from sftdemo.data.text.writing_systems import script
from sftdemo.errors import Text

# What files outside Unicode are in, by a name that Python and --encoding know. Subsets (EUC-KR, Latin-1, TIS-620) are
# left to the Windows page that holds them; of two that give the same text the first one counts.
KNOWN = {
    "cp1252": Text("Western European, Latin-1"),
    "cp949": Text("Korean, EUC-KR"),
    "gb18030": Text("Simplified Chinese, GBK"),
    "cp932": Text("Japanese, Shift-JIS"),
    "euc_jis_2004": Text("Japanese, EUC-JP"),
    "big5hkscs": Text("Traditional Chinese, Big5"),
    "cp1251": Text("Cyrillic, Windows"),
    "koi8-r": Text("Cyrillic, KOI8-R"),
    "koi8-u": Text("Cyrillic, KOI8-U"),
    "iso8859-5": Text("Cyrillic, ISO"),
    "cp866": Text("Cyrillic, DOS"),
    "cp1250": Text("Central European, Windows"),
    "iso8859-2": Text("Central European, Latin-2"),
    "iso8859-15": Text("Western European, Latin-9"),
    "cp1253": Text("Greek, Windows"),
    "iso8859-7": Text("Greek, ISO"),
    "cp1254": Text("Turkish, Windows"),
    "cp1255": Text("Hebrew"),
    "cp1256": Text("Arabic, Windows"),
    "iso8859-6": Text("Arabic, ISO"),
    "cp874": Text("Thai, TIS-620"),
    "cp1257": Text("Baltic, Windows"),
    "iso8859-13": Text("Baltic, ISO"),
    "cp1258": Text("Vietnamese"),
    "mac-roman": Text("Western European, Mac"),
    "cp850": Text("Western European, DOS"),
    "cp852": Text("Central European, DOS"),
    "cp437": Text("Western European, DOS of the US"),
}
_OLD = {"mac-roman", "cp850", "cp852", "cp437", "cp866", "iso8859-6", "iso8859-13"}  # rarer than their Windows rivals
# The letters beyond ASCII of languages in Latin letters: a text that mixes them is in none of these languages.
_ALPHABETS = [
    frozenset(letters + letters.upper().replace("SS", "") + "ªºµ")
    for letters in (
        "àâæçéèêëîïôœùûüÿ",  # French, and English with its loans
        "áéíóúüñïç",  # Spanish, Galician
        "àáâãçéêíóôõúü",  # Portuguese
        "àèéìíîòóùú",  # Italian
        "àçéèíïóòúü",  # Catalan
        "äöüßéàè",  # German
        "åäöéàüæø",  # Swedish, Danish, Norwegian, Finnish
        "áðéíóúýþæö",  # Icelandic
        "ëïéèêöüáíóú",  # Dutch
        "ąćęłńóśźż",  # Polish
        "áčďéěíňóřšťúůýžäĺľôŕ",  # Czech, Slovak
        "áéíóöőúüű",  # Hungarian
        "ăâîşţșț",  # Romanian
        "čćđšž",  # Croatian, Bosnian, Slovene, Serbian
        "çğıİöşüâîû",  # Turkish
        "ąčęėįšųūž",  # Lithuanian
        "āčēģīķļņšūž",  # Latvian
        "äõöüšž",  # Estonian
        "àảãáạăằẳẵắặâầẩẫấậđèẻẽéẹêềểễếệìỉĩíịòỏõóọôồổỗốộơờởỡớợùủũúụưừửữứựỳỷỹýỵ",  # Vietnamese
    )
]
_SEEN = 40_000  # bytes of lines beyond ASCII that decide
_SHOWN = 40  # characters of the sample that is shown
# How many times likelier than the next reading the best must be to be taken, and by how much more where it rests on one
# character alone.
_CLEAR, _ALONE = 1.2, 3.0
_STRAY, _ENOUGH = (
    0.02,
    300,
)  # a share of letters beyond ASCII that only Western text has, among so many letters at least
_WESTERN = 6.0  # how much likelier cp1252 is there
_CONTROL = re.compile("[\x80-\x9f\ue000-\uf8ff]")  # what text never holds
_BEYOND = re.compile(r"[^\x00-\x7f]")
_IN_WORD = re.compile(r"[^\x00-\x7f](?:\w|[^\x00-\x7f])|\w[^\x00-\x7f]")
_WORD = re.compile(r"\S*[^\x00-\x7f]\S*")
# Signs that stand in prose beside letters; any other symbol between two letters is a letter that was read wrongly.
_JOINING = set("’‘'-‐‑–—…·´/»«\u200c\u200d\u00ad")
_ALPHABETIC = {"Latin", "Greek", "Cyrillic", "Hebrew", "Arabic", "Thai"}
_BY_SYLLABLE = {"Han", "Kana", "Hangul"}


@dataclass(frozen=True)
class Reading:
    """An encoding the bytes may be in, a piece of what they say in it, how likely it is beside the others, and how many
    characters beyond ASCII say so: none where each stands alone, and may be anything."""

    encoding: str
    sample: str
    score: float
    evidence: int

    @property
    def text(self) -> Text:
        return Text("{encoding} ({name})", encoding=self.encoding, name=KNOWN[self.encoding])


def readings(data: bytes) -> list[Reading]:
    """The encodings that these bytes may be in, the likeliest first, one for each text they give."""
    import chardet

    lines = _beyond_ascii(data)
    results = chardet.detect_all(
        lines,
        ignore_threshold=True,
        compat_names=False,
        include_encodings=list(KNOWN),
        max_bytes=2 * _SEEN,
        empty_input_encoding="cp1252",
    )
    order = list(KNOWN)
    western = {"cp1252": _WESTERN} if _is_western(data[:_SEEN]) else {}
    scored = {}
    for result in results:
        name = result["encoding"]
        if name in KNOWN and (text := _decoded(lines, name)) is not None:
            scored[name] = (
                text,
                result["confidence"] * _plausible(text) * (0.8 if name in _OLD else western.get(name, 1.0)),
            )
    by_text: dict[str, tuple[float, str]] = {}
    for name in sorted(scored, key=order.index):
        text, score = scored[name]
        best, first = by_text.get(text, (0.0, name))
        by_text[text] = (max(best, score), first)
    candidates = [(score, name, text) for text, (score, name) in by_text.items() if score > 0]
    candidates.sort(key=lambda item: (-item[0], order.index(item[1])))
    rival = candidates[1][2] if len(candidates) > 1 else ""
    return [
        Reading(name, _sample(text, rival if place == 0 else candidates[0][2]), score, _evidence(text))
        for place, (score, name, text) in enumerate(candidates)
    ]


def certain(readings: list[Reading]) -> bool:
    """Whether the first reading is so much likelier than the second that nobody need be asked."""
    best, evidence = readings[0], readings[0].evidence
    return (
        evidence > 1 if len(readings) == 1 else best.score > (_CLEAR + _ALONE / max(evidence, 0.1)) * readings[1].score
    )


def rival(readings: list[Reading]) -> Reading:
    """What to ask about beside the first reading: the likeliest of the others, one in common use if there is any."""
    return next((reading for reading in readings[1:] if reading.encoding not in _OLD), readings[1])


def _evidence(text: str) -> int:
    return len(_BEYOND.findall(text)) if _IN_WORD.search(text) else 0


def _is_western(head: bytes) -> bool:
    """Whether nearly all is ASCII letters: English and its like, with a loan or a sign here and there."""
    beyond = sum(byte > 0x7F for byte in head)
    letters = len(re.findall(rb"[A-Za-z]", head)) + beyond
    return letters >= _ENOUGH and beyond < _STRAY * letters


def _beyond_ascii(data: bytes) -> bytes:
    """The lines that decide: those beyond ASCII, up to a limit."""
    kept: list[bytes] = []
    size = 0
    for line in data.split(b"\n"):
        if not line.isascii():
            kept.append(line[:_SEEN])
            size += len(kept[-1])
            if size > _SEEN:
                break
    return b"\n".join(kept)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _plausible(text: str) -> float:
    """From 0 to 1: how far its characters beyond ASCII could stand where they do and belong to one language."""
    if _CONTROL.search(text):
        return 0.0
    beyond = odd = 0
    latin: list[str] = []
    for match in _BEYOND.finditer(text):
        beyond += 1
        at = match.start()
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        odd += _odd(match[0], before, after)
        if script(match[0]) == "Latin":
            latin.append(match[0])
    one_language = max(sum(map(alphabet.__contains__, latin)) for alphabet in _ALPHABETS) / len(latin) if latin else 1.0
    return (1 - odd / beyond) ** 6 * one_language**2 if beyond else 0.0


def _odd(char: str, before: str, after: str) -> bool:
    """Whether the character can't well stand between these two."""
    category = unicodedata.category(char)
    if category in ("Cc", "Cn", "Co", "Cs") or "\u2500" <= char <= "\u25ff" or "\uff61" <= char <= "\uff9f":
        return True
    own_script = script(char)
    if own_script is None:
        if char in _JOINING or category[0] == "P" or category == "Mn":
            return False
        return (before.isalpha() and after.isalpha()) or category in ("Sk", "Lm")
    if own_script in _BY_SYLLABLE:
        return False
    beside = {script(other) for other in (before, after) if other} & _ALPHABETIC
    if beside - {own_script}:
        return True
    if own_script == "Latin" and char not in "ªºµ" and (before.isdigit() or after.isdigit()):
        return True
    return char.isupper() and before.islower()


def _sample(text: str, rival: str) -> str:
    """A few words, from where the text differs from its rival if it does early on; else from the first beyond ASCII."""
    lines, others = text.split("\n"), rival.split("\n")
    pairs = zip(lines, others, strict=False)
    line, other = next(((line, other) for line, other in pairs if line != other), (lines[0], ""))
    at = next((at for at, (a, b) in enumerate(zip(line, other, strict=False)) if a != b), None)
    if at is None:
        first = _WORD.search(line)
        at = first.start() if first else 0
    start = line.rfind(" ", 0, at) + 1
    start = start if at - start < _SHOWN // 2 else at
    return " ".join(line[start : start + _SHOWN].split())
