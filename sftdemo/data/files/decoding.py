"""Bytes to lines of text: Unicode in all its forms, the encoding the user names, or the one the bytes seem to be in."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from sftdemo.data.files import encodings
from sftdemo.errors import Text

# UTF-32's mark begins as UTF-16's, so it is looked for first.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEEN = 200_000  # bytes that are looked at for a verdict
_ISO_2022 = re.compile(rb"\x1b\$\(?[@BD]")
_FEW = 20  # lines that are named one by one


class Undecodable(ValueError):
    """The bytes can't be turned into text: `problem` says why, `remedy` what to do."""

    def __init__(self, problem: Text, remedy: Text) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(problem, remedy)


@dataclass
class DecodedText:
    """Lines without their ends; {number of a line that can't be read: (why, what to do)}; the encoding, and the words that decided."""

    lines: list[str]
    wrong: dict[int, tuple[Text, Text]] = field(default_factory=dict)
    encoding: str = "utf-8"
    sample: str = ""


def decode(data: bytes, encoding: str | None = None) -> DecodedText:
    """The text of a file, in the encoding given or else in the one it is found to be in.

    Raises Undecodable for what is no text, breaks off, or may be in either of two encodings.
    """
    if encoding:
        return _in_known(data, encoding)
    if mark := next((mark for mark in _MARKS if data.startswith(mark)), None):
        return _in_known(data, _MARKS[mark])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if b"\x00" in data[:_SEEN] and (wide := _wide(data[:_SEEN])):
        return _in_known(data, wide)
    if b"\x00" in data:
        return _with_nul(data)
    if _ISO_2022.search(data[:_SEEN]):
        return _in_known(data, "iso2022_jp_2")
    return DecodedText(_lines(text)) if text else _not_utf8(data)


def _not_utf8(data: bytes) -> DecodedText:
    """UTF-8 with some broken bytes, or another encoding if one is clearly likelier than the rest."""
    if _mostly_utf8(data):
        return _by_line(data, "utf-8")
    readings = encodings.readings(data)
    if not readings:
        raise Undecodable(
            Text("The file is neither text in a known encoding nor a known binary format."), Text("Save it as UTF-8.")
        )
    best = readings[0]
    if not encodings.certain(readings) and len(readings) == 1:
        raise Undecodable(
            Text("The text isn't UTF-8; it may be {best}: {sample!r}.", best=best.text, sample=best.sample),
            Text("If so, say --encoding {encoding}.", encoding=best.encoding),
        )
    if not encodings.certain(readings):
        other = encodings.rival(readings)
        raise Undecodable(
            Text(
                "The text isn't UTF-8; it may be {best}: {sample!r}, or {other}: {second!r}.",
                best=best.text,
                sample=best.sample,
                other=other.text,
                second=other.sample,
            ),
            Text("Say which with --encoding {best} or --encoding {other}.", best=best.encoding, other=other.encoding),
        )
    text = _in_known(data, best.encoding)
    text.sample = best.sample
    return text


def _mostly_utf8(data: bytes) -> bool:
    """Whether most lines beyond ASCII are UTF-8; in any other encoding they hardly ever are."""
    sound = broken = 0
    for line in data.split(b"\n"):
        if not line.isascii():
            if _is_utf8(line):
                sound += 1
            else:
                broken += 1
    if sound >= broken:
        return True
    # One long line: what is sound in it counts by the character.
    pieces = data[:_SEEN].decode("utf-8", "replace")
    lost = pieces.count("\ufffd")
    return sum(char > "\x7f" for char in pieces) - lost > 4 * lost


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: of Latin text every second byte is NUL, or three of four."""
    zeros = [head[place::4].count(0) * 4 / max(len(head), 1) for place in range(4)]
    for name, pattern in (
        ("utf-32-le", (False, None, True, True)),
        ("utf-32-be", (True, True, None, False)),
    ):
        if all(wanted is None or (share > 0.9) == wanted for share, wanted in zip(zeros, pattern, strict=True)):
            return name
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        count = head[start::2].count(0)
        if count > 0.3 * len(head) / 2 and count > 4 * head[1 - start :: 2].count(0):
            return name
    return None


def _with_nul(data: bytes) -> DecodedText:
    """Text never holds a NUL byte: the lines that do are at fault; with many of them it is no text at all."""
    lines = data.rstrip(b"\x00").split(b"\n")
    bad = [number for number, line in enumerate(lines, 1) if b"\x00" in line]
    sound = [line for line in lines if b"\x00" not in line]
    if len(bad) > _FEW or len(bad) >= len(sound) or not _is_utf8(b"\n".join(sound)):
        raise Undecodable(
            Text("The file holds NUL bytes: it is damaged, or no text file at all."), Text("Give a text file.")
        )
    text = _by_line(b"\n".join(lines), "utf-8")
    text.wrong |= dict.fromkeys(
        bad, (Text("The line holds a NUL byte, which no text has."), Text("Correct the line, or remove it."))
    )
    return text


def _in_known(data: bytes, encoding: str) -> DecodedText:
    """All of it in one encoding, with the lines that can't be if lines can be told apart."""
    name = encoding.upper() if encoding.lower().startswith("utf") else encoding
    try:
        return DecodedText(_lines(data.decode(encoding)), encoding=encoding)
    except UnicodeError as error:
        if encoding == "utf-8-sig" or "\n".encode(encoding) == b"\n":
            return _by_line(data, encoding)
        place, reason = (error.start, error.reason) if isinstance(error, UnicodeDecodeError) else (0, str(error))
        problem = Text(
            "The file can't be read as {encoding} at byte {n}: {reason}.",
            encoding=name,
            n=place + 1,
            reason=Text(reason.rstrip(".")),
        )
        raise Undecodable(problem, Text("Save the file as UTF-8.")) from None


def _by_line(data: bytes, encoding: str) -> DecodedText:
    lines: list[str] = []
    wrong: dict[int, tuple[Text, Text]] = {}
    save = Text("Save the file as UTF-8.")
    data = data.removeprefix(codecs.BOM_UTF8)
    plain = "utf-8" if encoding == "utf-8-sig" else encoding
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            lines.append(raw.decode(plain))
        except UnicodeDecodeError as error:
            problem = Text(
                "Byte {n} of the line, 0x{code:02x}, isn't {encoding}.",
                n=error.start + 1,
                code=raw[error.start],
                encoding=plain.upper(),
            )
            wrong[number] = problem, save
            lines.append(raw.decode(plain, "replace"))
        except UnicodeError:
            wrong[number] = Text("The line isn't {encoding}.", encoding=plain.upper()), save
            lines.append(raw.decode("ascii", "replace"))
    return DecodedText(lines, wrong, plain)


def _lines(text: str) -> list[str]:
    text = text.removeprefix("\ufeff")
    if "\r" in text and "\n" not in text:  # as old Macs ended lines
        text = text.replace("\r", "\n")
    return text.split("\n")
