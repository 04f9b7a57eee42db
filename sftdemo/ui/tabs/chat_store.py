"""Conversations that somebody keeps under a name: a file each under SFTDEMO_HOME, read by its keeper, and by whoever has the
link of one that is shared. The text of it alone: nothing in it is run or fetched."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sftdemo import files, runs
from sftdemo.errors import Text, UserError
from sftdemo.runs import notes
from sftdemo.ui.access import allowance, cookies, rights
from sftdemo.ui.access.ledger import ADDRESS_SHARE
from sftdemo.ui.tabs.chat_setup import MOST_BESIDE
from sftdemo.ui.tabs.conversation import Conversation, read

MOST_BYTES = 256_000  # of a kept conversation
MOST_OF_OWNER = 500
MOST_NAME = 80
ADDRESS = "address"  # the file in a visitor's folder that tells, by a pseudonym, which of them share an address
DAY_S = 24 * 3600.0
SWEEP_S = 3600.0
UNDO_S = 3600.0
DELETED = ".deleted"  # the end of the name of a deleted chat's file, after the chat's id and whose it was
_guard = threading.Lock()  # between counting and writing
_ID = re.compile("[A-Za-z0-9_-]{24}")


@dataclass(frozen=True)
class KeptChat:
    """A conversation with a run and others beside it, as it was when it was kept."""

    id: str
    name: str
    run_names: list[str]
    conversation: Conversation
    kept: float = field(default_factory=time.time)  # seconds since 1970
    shared: bool = False


def folder() -> Path:
    return runs.home() / "chats"


def _place(visitor: rights.Visitor) -> Path:
    """The owner's are one collection, whatever the browser; a visitor's are those of the browser."""
    return folder() / ("owner" if visitor.owner else visitor.key)


def keep(visitor: rights.Visitor, name: str, run_names: list[str], conversation: Conversation) -> KeptChat:
    """Write a conversation to disk; raises UserError where the name or the conversation is empty, or there is no room."""
    if not conversation.turns:
        raise UserError("There is no conversation to keep yet; ask something first.")
    if not visitor.owner and not visitor.browser:
        raise UserError(
            "This browser sends no cookies, by which its chats would be found again; allow them for this page."
        )
    chat = KeptChat(secrets.token_urlsafe(18), checked_name(name), _columns(run_names), conversation)
    with _guard:
        _check_room(visitor)
        _write(visitor, _place(visitor), chat)
        if not visitor.owner:
            files.write_text(_place(visitor) / ADDRESS, cookies.pseudonym(visitor.address))
    return chat


def _columns(run_names: list[str]) -> list[str]:
    """As many runs as answer beside each other, each once, whatever a page or a file holds."""
    return list(dict.fromkeys(run_names))[: 1 + MOST_BESIDE]


def _check_room(visitor: rights.Visitor) -> None:
    """Raise UserError where the visitor, those at the same address, or all visitors together keep the most already."""
    config = rights.policy().config
    own = len(list(_place(visitor).glob("*.json")))
    if own >= (MOST_OF_OWNER if visitor.owner else config.visitor_chats):
        raise UserError("{n} chats are kept, which is the most; delete one first.", n=own)
    if visitor.owner:
        return
    mark = cookies.pseudonym(visitor.address)
    places = [path.parent for path in folder().glob(f"*/{ADDRESS}") if path.read_text(encoding="utf-8") == mark]
    from_address = sum(1 for place in places for _ in place.glob("*.json"))
    if from_address >= ADDRESS_SHARE * config.visitor_chats or of_visitors() >= config.all_chats:
        raise UserError("No more chats can be kept here at the moment; export this one instead.")


def checked_name(name: str) -> str:
    """The name on one line that shows as what it is."""
    if not (line := notes.one_line(name, Text("name"), MOST_NAME)):
        raise UserError("Give the chat a name first.")
    return line


def _write(visitor: rights.Visitor, place: Path, chat: KeptChat) -> None:
    """Write a chat that this visitor keeps or changes, which counts for its allowance."""
    value = asdict(chat)
    size = len(files.jsonl([value]).encode())
    if size > MOST_BYTES:
        raise UserError(
            "The conversation has {size:,} bytes, and {most:,} are the most to keep; export it instead.",
            size=size,
            most=MOST_BYTES,
        )
    with allowance.reserved(visitor, "chat_changes", 1) as booked:
        files.write_json(place / f"{chat.id}.json", value)
        booked.used = 1


def _read(path: Path) -> KeptChat | None:
    """The chat in a file; None where another program has damaged it."""
    try:
        chat: KeptChat = read(KeptChat, files.read_json_uncached(path))
    except (OSError, ValueError, UserError):
        return None
    return replace(chat, run_names=_columns(chat.run_names))


def listed(visitor: rights.Visitor) -> list[KeptChat]:
    """The visitor's own, the newest first; for the owner also what visitors share."""
    chats = [chat for path in _place(visitor).glob("*.json") if (chat := _read(path))]
    if visitor.owner:
        chats += [chat for path in _of_others() if (chat := _read(path)) and chat.shared]
    return sorted(chats, key=lambda chat: -chat.kept)


def _of_others() -> Iterator[Path]:
    return (path for path in folder().glob("*/*.json") if path.parent.name != "owner")


def of_visitors() -> int:
    """How many chats visitors keep."""
    return sum(1 for _ in _of_others())


def delete_of_visitors() -> None:
    """Delete all that visitors keep, what they share with it."""
    with _guard:
        for gone in folder().glob(f"owner/*{DELETED}"):
            gone.unlink()
        for place in folder().glob("*"):
            if place.is_dir() and place.name != "owner":
                shutil.rmtree(place)


def sweep(now: float | None = None) -> None:
    """Delete visitors' chats that nobody shares and that have been here for as long as such are kept."""
    now = now or time.time()
    oldest = now - DAY_S * rights.policy().config.chat_days
    with _guard:
        for path in [path for path in folder().glob(f"*/*{DELETED}") if path.stat().st_mtime < now - UNDO_S]:
            path.unlink()
        for path in [path for path in _of_others() if path.stat().st_mtime < oldest]:
            chat = _read(path)
            if not chat or not chat.shared:
                path.unlink()
        for mark in folder().glob(f"*/{ADDRESS}"):
            if {path.suffix for path in mark.parent.iterdir()}.isdisjoint({".json", DELETED}):
                shutil.rmtree(mark.parent)


def sweep_forever() -> None:
    while True:
        with contextlib.suppress(FileNotFoundError):  # another process on this home deletes, too
            sweep()
        time.sleep(SWEEP_S)


def _path(visitor: rights.Visitor, chat_id: str) -> Path:
    """The file of a chat that this visitor may open and delete."""
    if not _ID.fullmatch(chat_id):
        raise UserError("That chat isn't kept here any more.")
    places = folder().glob("*") if visitor.owner else [_place(visitor)]
    path = next((place / f"{chat_id}.json" for place in places if (place / f"{chat_id}.json").is_file()), None)
    if path is None:
        raise UserError("That chat isn't kept here any more.")
    return path


def find(visitor: rights.Visitor, chat_id: str) -> KeptChat:
    """One of those `listed`."""
    chat = _read(_path(visitor, chat_id))
    if chat is None:
        raise UserError("The file of this chat is damaged; delete the chat.")
    return chat


def change(visitor: rights.Visitor, chat_id: str, name: str | None = None, shared: bool | None = None) -> KeptChat:
    """Another name, or whether whoever has the link may read it."""
    with _guard:
        chat = find(visitor, chat_id)
        chat = chat if name is None else replace(chat, name=checked_name(name))
        chat = chat if shared is None else replace(chat, shared=shared)
        _write(visitor, _path(visitor, chat_id).parent, chat)
    return chat


def delete(visitor: rights.Visitor, chat_id: str) -> None:
    """Delete a chat and its link. The last one that somebody has deleted can be brought back for UNDO_S."""
    with _guard:
        path, place = _path(visitor, chat_id), _place(visitor)
        for before in place.glob(f"*{DELETED}"):
            before.unlink()
        place.mkdir(parents=True, exist_ok=True)
        gone = path.rename(place / f"{chat_id}.{path.parent.name}{DELETED}")
        os.utime(gone)  # from now on it is kept for UNDO_S


def restore(visitor: rights.Visitor, chat_id: str) -> None:
    """Bring back the chat that this visitor deleted last, where it was, with its link; raises UserError where it is gone."""
    with _guard:
        gone = next(iter(_place(visitor).glob(f"{chat_id}.*{DELETED}")), None) if _ID.fullmatch(chat_id) else None
        if gone is None:
            raise UserError("That chat can't be brought back any more.")
        whose = gone.name.removeprefix(f"{chat_id}.").removesuffix(DELETED)
        if whose == _place(visitor).name:
            _check_room(visitor)
        (folder() / whose).mkdir(exist_ok=True)
        gone.rename(folder() / whose / f"{chat_id}.json")


def shared(chat_id: str) -> KeptChat | None:
    """The chat of a link, if it is shared; of a visitor's, only as long as visitors may share."""
    if not _ID.fullmatch(chat_id):
        return None
    whose = "*" if rights.policy().config.visitors_share else "owner"
    paths = folder().glob(f"{whose}/{chat_id}.json")
    return next((chat for path in paths if (chat := _read(path)) and chat.shared), None)
