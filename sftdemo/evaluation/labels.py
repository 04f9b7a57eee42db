"""Which label an answer gives: to the letter, and as a reader would take it."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sftdemo.errors import UserError
from sftdemo.evaluation.words import NO_SPACES, pattern, units

LENIENT_SIGNATURE = (
    "match:named-label|strip:markup,lead-in,punctuation|in:first-line,first-sentence|two-labels:wrong|negated:wrong"
)


def parse_labels(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Which of `labels` each text is, by its place; len(labels) where it is none of them.

    The whole text must be the label but for outer spaces, case and Unicode form. Where labels differ in case alone,
    case decides.
    """
    parse = _strict(labels)
    return [parse(text) for text in texts]


def parse_true_labels(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """As parse_labels, but a text that is none of `labels` is an error."""
    places = parse_labels(texts, labels)
    if len(labels) in places:
        row = places.index(len(labels))
        raise UserError(
            "Row {row}: the label {label!r} is not among: {names}.", row=row + 1, label=texts[row], names=list(labels)
        )
    return places


def parse_lenient(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Which of `labels` a reader would say each text gives, by its place; len(labels) where it is none, or two.

    What parse_labels finds stays. Else markup (Markdown, HTML, LaTeX, code fences, quotes), a lead-in ("Label:", "The
    answer is", "答案：") and punctuation are taken away, and the label must be the only one that the first sentence, or
    the first line, names as whole words. A label inside a longer one isn't named, nor is one that is negated or asked
    about. Where the next sentence or line is little more than another label, two are named.
    """
    reader = _Reader(labels)
    return [reader.read(text) for text in texts]


def _strict(labels: Sequence[str]) -> Callable[[str], int]:
    exact_places = {unicodedata.normalize("NFKC", label).strip(): place for place, label in enumerate(labels)}
    shared = Counter(label.casefold() for label in exact_places)
    places = {label.casefold(): place for label, place in exact_places.items() if shared[label.casefold()] == 1}

    def parse(text: str) -> int:
        plain = unicodedata.normalize("NFKC", text).strip()
        return exact_places.get(plain, places.get(plain.casefold(), len(labels)))

    return parse


# What is taken away

_NOUNS = (
    "label|sentiment|category|class|classification|answer|intent|topic|type|result|output|prediction|response|verdict|"
    "emotion|tone|polarity|标签|类别|分类|情感|情感倾向|情感极性|答案|回答|结果|输出|意图|主题|类型|预测"
)
# Sets under (?i:…) are possessive or bounded: with all case foldings `regex` tries letters of several in exponential time.
_LEAD_IN = (
    rf"\W*(?:(?:[\p{{L}}'’]++\s+){{0,5}}?|[\p{{Han}}]{{0,12}}?)(?:{_NOUNS})(?:\s+(?:of|for|in)\s+[^:.!?。]{{1,80}}?)?"
    r"(?:\s+(?:is|was|would\s+be|should\s+be)\b|\s*(?::|=>?|->|→|是|为))\s*:?\s*"
)
_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_MARKUP = (
    (re.compile(r"[\u200b\u200e\u200f\u2060\ufeff]"), ""),
    (re.compile(r"\\(?:text|mathrm|mathbf|mathsf|textbf|textit|emph|operatorname)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[()\[\]]|\$"), ""),
    (re.compile(r"^\s*(?:```|~~~)\s*(?:json|text|txt|plaintext|markdown|md|html|xml|yaml|python)?\s*$", re.M), ""),
    (re.compile(r"(\*{1,3}|~~|`{1,3})(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<!\w)(_{1,3})(?=[^\W_])(.+?)(?<=[^\W_])\1(?!\w)"), r"\2"),
)
_TAG = re.compile(r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>")


def _unwrapped(text: str) -> str:
    """A text without its markup; what stands in LaTeX boxes is the answer, whatever surrounds them."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    if boxes := list(dict.fromkeys(_BOX.findall(text))):
        text = " ".join(boxes)
    for mark, kept in _MARKUP:
        text = mark.sub(kept, text)
    without_tags = _TAG.sub(" ", text)
    return without_tags if _speaks(without_tags) else text


_EDGES = " \t\r\n.。,;:!?\"'“”‘’«»「」『』()[]{}<>"


def _speaks(text: str) -> bool:
    return any(character.isalnum() for character in text)


# What is named

_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{NO_SPACES}]]"
_CLAUSE = r"[,;:()\[\]—–]|\s-\s|\b(?:but|because|therefore|thus|hence|since|however|although|though)\b|但是?|而是|所以|因此|因为"
_NEGATED = (
    r"(?:\b(?:not|no(?!\s+doubt)|non|never|neither|nor|cannot|without|hardly|barely|un(?:likely|sure)|instead\s+of|(?:rather\s+)?than|"
    r"nicht|keine?|pas|ne|não|niet|geen|ikke|inte|не|нет|nie)\b|n['’]t\b)(?:\W+\w+){0,5}?\W*$"
    r"|(?:不(?![错过仅但只])|没有?|非(?!常)|无|未)[^,.:;!?。]{0,4}$"
)
_NEGATED_BEHIND = r"\s*(?:では?な|じゃな|ではありません|[이가]?\s?아[니닙])"
# Words that sentences use anyway: like letters and numbers they count as labels only where a sentence puts an answer.
_COMMON = {
    "a",
    "i",
    "no",
    "not",
    "none",
    "other",
    "on",
    "off",
    "in",
    "out",
    "up",
    "down",
    "all",
    "any",
    "it",
    "is",
    "or",
}
_ANNOUNCED = (
    r"(?:answer|option|choice|label|class|category|rating|score|grade|level|number|选项|答案|标签|类别|评分)"
    r"(?:\s+(?:is|of|would\s+be))?\s*[:=]?\W*$"
)
_SENTENCE_END = rf"(?<=[.!?])\s+|(?<=。)|(?<=[!?;])(?=[{NO_SPACES}])"
_BRIEF = 2  # words or characters, at most, in what is no sentence of its own: "Sure!", "or negative", "stars"


class _Reader:
    """Finds the labels that texts name; made once for a set of labels."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels, self.unknown = {_normal(label) for label in labels}, len(labels)
        self.strict = _strict(labels)
        keys = [_key(label) for label in labels]
        shared = Counter(keys)
        self.places = {key: place for place, key in enumerate(keys) if shared[key] == 1}
        self.by_first_word: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)
        for label in sorted(self.labels):
            if words := _words(label):
                self.by_first_word[words[0]].append((label, set(words)))
        self.expressions: dict[str, Any] = {}
        self.cut = None if any(re.search(r"[.!?。;]", label) for label in labels) else pattern(_SENTENCE_END)

    def read(self, text: str) -> int:
        unwrapped = _unwrapped(text)
        for candidate in (text, unwrapped, unwrapped.strip(_EDGES)):
            if (place := self.strict(candidate)) != self.unknown:
                return place
        lines = [line for line in unwrapped.splitlines() if _speaks(line) or self._is_label(line)]
        while len(lines) > 1 and self._only_leads_in(lines[0]):
            del lines[0]
        if not lines:
            return self.unknown
        line = self._without_lead_in(lines[0])
        sentences = [line] if self._is_label(line) else self._sentences(line)
        named = self._named(sentences[0])
        following = [*sentences[1:], *lines[1:]][:1]
        if not named:
            named = {place for sentence in sentences for place in self._named(sentence)}
            following = lines[1:2]
        if len(named) != 1 or any(self._adds(sentence, named) for sentence in following):
            return self.unknown
        return named.pop()

    def _is_label(self, text: str) -> bool:
        return self.strict(text.strip(_EDGES)) != self.unknown

    def _sentences(self, line: str) -> list[str]:
        return [part for part in self.cut.split(line) if _speaks(part)] or [line] if self.cut else [line]

    def _only_leads_in(self, line: str) -> bool:
        """Whether a line only announces what comes: a heading, words before a colon, "Sure!"; without a label."""
        if pattern(rf"(?i:{_LEAD_IN})").fullmatch(line):
            return True
        announces = line.lstrip().startswith("#") or line.rstrip(" *_").endswith(":") or _is_brief(line)
        return announces and not self._mentions(line)

    def _without_lead_in(self, line: str) -> str:
        lead = pattern(rf"(?i:{_LEAD_IN})").match(line)
        if not lead or pattern(rf"(?i:{_NEGATED})").search(lead[0]):
            return line
        nouns = pattern(rf"(?i:{_NOUNS})")
        own = any(not nouns.fullmatch(mention[0]) for mention in self._mentions(lead[0]))
        return line if own else line[lead.end() :]

    def _mentions(self, text: str) -> list[Any]:
        """The labels in a text, from left to right, of those that overlap the longest."""
        mentions = []
        words_there = set(_words(text))
        words_there |= {
            re.sub(rf"(?<=.)(?:{_KOREAN_ENDINGS})$", "", word) for word in words_there if "가" <= word[-1] <= "힣"
        }
        for label, words in (entry for word in words_there for entry in self.by_first_word.get(word, ())):
            if words <= words_there:
                if label not in self.expressions:
                    import regex  # type: ignore[import-untyped]

                    self.expressions[label] = regex.compile(rf"(?i:{_mention(label)})", regex.V1)
                mentions += self.expressions[label].finditer(text)
        apart: list[Any] = []
        for mention in sorted(mentions, key=lambda mention: (mention.start(), -mention.end())):
            if not apart or mention.start() >= apart[-1].end():
                apart.append(mention)
        return apart

    def _named(self, sentence: str) -> set[int]:
        """The places of the labels that a sentence gives."""
        if self._is_label(sentence):
            return {self.strict(sentence.strip(_EDGES))}
        if self.cut and sentence.rstrip(" \"')").endswith("?") and not _is_brief(sentence, 1 + _BRIEF):
            return set()
        return {
            self._place(mention[0]) for mention in self._mentions(sentence) if self._is_given(sentence, mention)
        } - {self.unknown}

    def _place(self, written: str) -> int:
        place = self.strict(written)
        return place if place != self.unknown else self.places.get(_key(written), self.unknown)

    def _is_given(self, sentence: str, mention: Any) -> bool:
        before, after = sentence[: mention.start()], sentence[mention.end() :]
        clause = pattern(rf"(?i:{_CLAUSE})").split(before)[-1]
        if pattern(rf"(?i:{_NEGATED})").search(clause) or pattern(_NEGATED_BEHIND).match(after):
            return False
        key = _key(mention[0])
        if len(key) > 1 and key not in _COMMON and not key.isdecimal():
            return True
        clause_behind = pattern(rf"(?i:{_CLAUSE}|[.!?。\n])").split(after)[0]
        if not _speaks(clause_behind) or (key.isdecimal() and _is_brief(sentence, 1 + _BRIEF)):
            return True
        return key not in _COMMON and mention[0] in self.labels and bool(pattern(rf"(?i:{_ANNOUNCED})").search(before))

    def _adds(self, sentence: str, named: set[int]) -> bool:
        """Whether a sentence is little more than another label."""
        if not self._named(sentence) - named:
            return False
        mentioned = sum(len(units().findall(mention[0])) for mention in self._mentions(sentence))
        return _is_brief(sentence, mentioned + _BRIEF)


_JOINTS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")


def _words(text: str) -> list[str]:
    return [unit.casefold() for unit in units().findall(text)]


def _is_brief(text: str, most: int = _BRIEF) -> bool:
    return len(units().findall(text)) <= most


def _normal(label: str) -> str:
    return unicodedata.normalize("NFKC", label).strip()


def _key(text: str) -> str:
    """A label as it is compared with what a text says: case, and how its words are joined, aside."""
    return _JOINTS.sub(" ", _normal(text).casefold())


# Korean writes "is" and its like onto the noun.
_KOREAN_ENDINGS = "입니다|이다|이에요|예요|이며|이고|이라고|임|으로|로|이|은|는|을|를"


def _mention(label: str) -> str:
    """The label as whole words, however they are joined."""
    body = r"[\s_-]+".join(map(re.escape, _JOINTS.split(label)))
    before = after = ""
    if pattern(_LETTER).match(label[0]):
        before = rf"(?<!{_LETTER})(?<!{_LETTER}[-_])" + (r"(?<![\d][.,])(?<![-−+])" if label[0].isdecimal() else "")
    if pattern(_LETTER).match(label[-1]):
        after = rf"(?=(?:{_KOREAN_ENDINGS})?(?!{_LETTER}))" if "가" <= label[-1] <= "힣" else rf"(?!{_LETTER})"
        after += rf"(?![-_]{_LETTER})" + (r"(?![.,]\d)" if label[-1].isdecimal() else r"(?![+#])")
    return f"{before}{body}{after}"
