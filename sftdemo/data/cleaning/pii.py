"""Personal data in text: e-mail and IP addresses, phone, card, bank and identity numbers, by typed placeholders."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator

from sftdemo.data.text.writing_systems import written_in_han
from sftdemo.errors import Text

NOT_COVERED = Text("Personal data: names and postal addresses are not found by this step; look for them yourself.")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(?![\w-])", re.ASCII)
_CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])", re.ASCII)
_CHINESE_ID = re.compile(r"(?<![0-9A-Za-z])\d{17}[\dXx](?![0-9A-Za-z])", re.ASCII)
_AMERICAN_ID = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", re.ASCII)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}\d{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?(?![0-9A-Za-z])", re.ASCII)
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)", re.ASCII
)
_SEVEN_DIGITS = re.compile(r"\d(?:[\s().+-]*\d){6}", re.ASCII)


def replace(text: str) -> tuple[str, Counter[str]]:
    """The text with placeholders such as <EMAIL>, and how many of each kind.

    Numbers are taken only where their checksum or numbering plan is right (Luhn, IBAN, the Chinese identity number, the
    American social security number, phone numbers of the United States, Britain and China, and all that begin with +).
    """
    counts: Counter[str] = Counter()
    for kind, pattern, is_real in _KINDS:

        def put(match: re.Match[str], kind: str = kind, is_real: Callable[[str], bool] = is_real) -> str:
            if not is_real(match[0]):
                return match[0]
            counts[kind] += 1
            return f"<{kind}>"

        text = pattern.sub(put, text)
    parts, at = [], 0
    for start, end in _phones(text):
        parts += [text[at:start], "<PHONE>"]
        at = end
        counts["PHONE"] += 1
    return "".join([*parts, text[at:]]), counts


def _phones(text: str) -> Iterator[tuple[int, int]]:
    if not _SEVEN_DIGITS.search(text):
        return
    import phonenumbers

    reached = 0
    spans = {
        (match.start, match.end)
        for region in (("CN",) if written_in_han(text) else ("US", "GB"))
        for match in phonenumbers.PhoneNumberMatcher(text, region)
    }
    for start, end in sorted(spans):
        if start >= reached:
            yield start, end
            reached = end


def _is_card(text: str) -> bool:
    from stdnum import luhn

    digits = re.sub(r"\D", "", text)
    return len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def _is_chinese_id(text: str) -> bool:
    from stdnum.cn import ric

    return bool(ric.is_valid(text.upper()))


def _is_american_id(text: str) -> bool:
    from stdnum.us import ssn

    return bool(ssn.is_valid(text))


def _is_iban(text: str) -> bool:
    from stdnum import iban

    return bool(iban.is_valid(text))


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 or len(text) > 6  # "::1" and times of day are none


_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("EMAIL", _EMAIL, lambda _: True),
    ("ID", _CHINESE_ID, _is_chinese_id),
    ("IBAN", _IBAN, _is_iban),
    ("CARD", _CARD, _is_card),
    ("ID", _AMERICAN_ID, _is_american_id),
    ("IP", _IP, _is_ip),
)
