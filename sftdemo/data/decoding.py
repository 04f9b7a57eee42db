"""Bytes to text: UTF-8 with or without BOM, UTF-16, GB18030; and a fault for every line that is none of them."""

from __future__ import annotations

import codecs

_UTF16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEEN = 200_000  # bytes or characters that are looked at for a verdict
_COMMON_HAN = 0.9  # of the characters beyond ASCII, at least, in text that is really GB18030


class Undecodable(ValueError):
    """The bytes can't be turned into text; the message says why."""


def decode(data: bytes) -> tuple[list[str], dict[int, str], str]:
    """(lines, {number of a line that isn't UTF-8: what is wrong with it}, the encoding's name).

    Raises Undecodable for UTF-16 that breaks off.
    """
    encoding = _encoding(data)
    if encoding != "utf-8":
        try:
            return data.decode(encoding).removeprefix("\ufeff").split("\n"), {}, encoding
        except UnicodeDecodeError as error:
            raise Undecodable(f"byte {error.start + 1} can't be read: {error.reason}") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8").split("\n"), {}, encoding
    except UnicodeDecodeError:
        return *_by_line(data), encoding


def _by_line(data: bytes) -> tuple[list[str], dict[int, str]]:
    lines, bad = [], {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            lines.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad[number] = f"Byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, isn't UTF-8."
            lines.append(raw.decode("utf-8", "replace"))
    return lines, bad


def _encoding(data: bytes) -> str:
    if data[:2] in _UTF16:
        return "utf-16"
    head = data[:_SEEN]
    # Text has no NUL; in UTF-16 every second byte of Latin text is one.
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros = head[start::2].count(0)
        if zeros > 0.3 * len(head) / 2 and zeros > 4 * head[1 - start :: 2].count(0):
            return name
    return "gb18030" if not _is(data, "utf-8") and _is_chinese(data) else "utf-8"


def _is(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_chinese(data: bytes) -> bool:
    """GB18030 allows nearly any bytes, so nearly all of the text must be everyday characters (level 1 of GB 2312)."""
    if not _is(data, "gb18030"):
        return False
    beyond = [char for char in data.decode("gb18030")[:_SEEN] if char > "\x7f"]
    return sum(map(_everyday, beyond)) >= _COMMON_HAN * len(beyond)


def _everyday(char: str) -> bool:
    try:
        code = char.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return code[0] <= 0xA3 or 0xB0 <= code[0] <= 0xD7
