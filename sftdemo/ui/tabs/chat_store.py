"""Conversations that somebody keeps under a name: a file each under SFTDEMO_HOME, read by its keeper, and by whoever has the
link of one that is shared. The text of it alone: nothing in it is run or fetched."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sftdemo import files, runs
from sftdemo.errors import UserError
from sftdemo.ui.access import rights
from sftdemo.ui.tabs.conversation import Conversation, read

MOST_BYTES = 256_000  # of a kept conversation
MOST_OF_OWNER = 500
MOST_NAME = 80
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
    config = rights.policy().config
    own, every = len(list(_place(visitor).glob("*.json"))), len(list(folder().glob("*/*.json")))
    most = MOST_OF_OWNER if visitor.owner else config.visitor_chats
    if own >= most:
        raise UserError("{n} chats are kept, which is the most; delete one first.", n=own)
    if not visitor.owner and every >= config.all_chats + MOST_OF_OWNER:
        raise UserError("No more chats can be kept here at the moment; export this one instead.")
    chat = KeptChat(secrets.token_urlsafe(18), checked_name(name), run_names, conversation)
    _write(_place(visitor), chat)
    return chat


def checked_name(name: str) -> str:
    """The name on one line."""
    name = " ".join(name.split())
    if not name:
        raise UserError("Give the chat a name first.")
    if len(name) > MOST_NAME:
        raise UserError("The name has {n} characters; {most} are the most.", n=len(name), most=MOST_NAME)
    return name


def _write(place: Path, chat: KeptChat) -> None:
    value = asdict(chat)
    size = len(files.jsonl([value]).encode())
    if size > MOST_BYTES:
        raise UserError(
            "The conversation has {size:,} bytes, and {most:,} are the most to keep; export it instead.",
            size=size,
            most=MOST_BYTES,
        )
    files.write_json(place / f"{chat.id}.json", value)


def _read(path: Path) -> KeptChat | None:
    """The chat in a file; None where another program has damaged it."""
    try:
        chat: KeptChat = read(KeptChat, files.read_json_uncached(path))
    except (OSError, ValueError, UserError):
        return None
    return chat


def listed(visitor: rights.Visitor) -> list[KeptChat]:
    """The visitor's own, the newest first; for the owner also what visitors share."""
    chats = [chat for path in _place(visitor).glob("*.json") if (chat := _read(path))]
    if visitor.owner:
        chats += [chat for path in _of_others() if (chat := _read(path)) and chat.shared]
    return sorted(chats, key=lambda chat: -chat.kept)


def _of_others() -> Iterator[Path]:
    return (path for path in folder().glob("*/*.json") if path.parent.name != "owner")


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
    chat = find(visitor, chat_id)
    chat = chat if name is None else replace(chat, name=checked_name(name))
    chat = chat if shared is None else replace(chat, shared=shared)
    _write(_path(visitor, chat_id).parent, chat)
    return chat


def delete(visitor: rights.Visitor, chat_id: str) -> None:
    """Delete a chat and its link."""
    _path(visitor, chat_id).unlink(missing_ok=True)


def shared(chat_id: str) -> KeptChat | None:
    """The chat of a link, if it is shared; of a visitor's, only as long as visitors may share."""
    if not _ID.fullmatch(chat_id):
        return None
    whose = "*" if rights.policy().config.visitors_share else "owner"
    paths = folder().glob(f"{whose}/{chat_id}.json")
    return next((chat for path in paths if (chat := _read(path)) and chat.shared), None)
