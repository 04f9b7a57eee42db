"""The settings of the web app: where it listens, who owns it, and what its visitors may do and use up."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Self

from sftdemo.config.settings import Settings, setting, value_type
from sftdemo.errors import UsageError

ENVIRONMENT = "SFTDEMO_"
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
SECRET = ("password", "api_key")  # by environment only: every user of the machine sees flags


@dataclass(frozen=True)
class AppConfig(Settings):
    """How the web app is served. Limits count over an hour; "in all" is what all visitors share. The owner has none."""

    host: str | None = setting(
        None, "The address to listen on; default: 127.0.0.1, on a Space 0.0.0.0.", group="Server"
    )
    port: int | None = setting(None, "The port; default: 7860.", group="Server", low=1, high=65535)
    allowed_hosts: str | None = setting(
        None, "Further names the app is reached by, as a list: sft.example.org,gpu-box.", group="Server"
    )
    proxies: str | None = setting(
        None,
        "Proxies that say who asks (X-Forwarded-…), as a list of addresses or networks: 10.1.2.3,172.30.0.0/24; those on this "
        "machine and a Space's own always may.",
        group="Server",
    )
    allowed_folders: str | None = setting(
        None,
        f"Folders of the server from which the owner may read over the network, with {os.pathsep!r} between them; "
        "default: none.",
        group="Server",
    )
    resume: bool = setting(False, "At start, go on with the newest training if it was cut off.", group="Server")
    backup_repo: str | None = setting(
        None,
        "A private data-set repository of the Hub (owner/name) that keeps runs and votes where the disk doesn't; needs HF_TOKEN.",
        group="Server",
    )
    owners: str | None = setting(
        None, "Hub accounts that own the app, as a list: alice,bob; on a Space its own owner is one.", group="Owner"
    )
    password: str | None = setting(None, "The password by which the owner signs in.", group="Owner")
    openai: bool = setting(
        False, "Serve base and runs to clients of OpenAI's API, at /v1; SFTDEMO_API_KEY is their key.", group="Server"
    )
    api_key: str | None = setting(
        None, "The key for /v1; without one, only the owner on this machine may use it.", group="Server"
    )
    visitors_chat: bool = setting(True, "Visitors may chat.", group="Visitors")
    visitors_share: bool = setting(False, "Visitors may share their chats as a link.", group="Visitors")
    visitors_vote: bool = setting(True, "Visitors may vote.", group="Visitors")
    visitors_evaluate: bool = setting(False, "Visitors may evaluate.", group="Visitors")
    visitors_train: bool = setting(False, "Visitors may train.", group="Visitors")
    visitors_own_data: bool = setting(False, "Visitors may upload data.", group="Visitors")
    visitor_tokens: int = setting(40_000, "Tokens of answers for a visitor.", group="Limits", low=1)
    all_tokens: int = setting(1_000_000, "Tokens of answers in all.", group="Limits", low=1)
    visitor_votes: int = setting(300, "Votes by a visitor.", group="Limits", low=1)
    all_votes: int = setting(10_000, "Votes in all.", group="Limits", low=1)
    visitor_rows: int = setting(200, "Rows evaluated for a visitor.", group="Limits", low=1)
    all_rows: int = setting(1_000, "Rows evaluated in all.", group="Limits", low=1)
    visitor_steps: int = setting(200, "Training steps for a visitor.", group="Limits", low=1)
    all_steps: int = setting(1_000, "Training steps in all.", group="Limits", low=1)
    visitor_minutes: int = setting(20, "Minutes of training for a visitor.", group="Limits", low=1)
    all_minutes: int = setting(50, "Minutes of training in all.", group="Limits", low=1)
    visitor_uploads: int = setting(10, "Files uploaded by a visitor.", group="Limits", low=1)
    all_uploads: int = setting(100, "Files uploaded in all.", group="Limits", low=1)
    visitor_kept_mb: int = setting(200, "Megabytes of uploads kept for a visitor at one time.", group="Limits", low=1)
    visitor_kept_files: int = setting(20, "Uploads kept for a visitor at one time.", group="Limits", low=1)
    upload_hours: float = setting(
        24.0, "Hours until an upload, or a file written for download, is deleted.", group="Limits", low=0.01
    )
    uploads_end_with_page: bool = setting(
        True, "A visitor's uploads are deleted ten minutes after the page that read them is closed.", group="Limits"
    )
    visitor_chats: int = setting(20, "Chats kept for a visitor at one time.", group="Limits", low=1)
    all_chats: int = setting(1_000, "Chats kept for all visitors at one time.", group="Limits", low=1)
    visitor_chat_changes: int = setting(60, "Chats kept, renamed or shared by a visitor.", group="Limits", low=1)
    all_chat_changes: int = setting(2_000, "Chats kept, renamed or shared in all.", group="Limits", low=1)
    chat_days: float = setting(
        30.0,
        "Days until a visitor's chat that isn't shared is deleted, from its last change.",
        group="Limits",
        low=0.01,
    )
    visitor_waiting: int = setting(5, "Requests of a visitor to the model at one time.", group="Limits", low=1)
    all_waiting: int = setting(100, "Requests to the model in all at one time.", group="Limits", low=1)

    @classmethod
    def from_environment(cls, **flags: Any) -> Self:
        """The settings by the environment (SFTDEMO_OWNERS and the like); what is given as a flag counts before it."""
        values = {}
        for spec in dataclasses.fields(cls):
            if text := os.environ.get(variable(spec.name), "").strip():
                values[spec.name] = _value(spec, value_type(spec, cls)[0], text)
        return cls.from_json({**values, **flags})

    def listed(self, name: str, separator: str = ",") -> list[str]:
        """The entries of a setting that is a list."""
        return [entry.strip() for entry in (getattr(self, name) or "").split(separator) if entry.strip()]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT + name.upper()


def _value(spec: dataclasses.Field[Any], kind: type, text: str) -> Any:
    """The text of an environment variable as the setting's type."""
    if kind is bool and text.casefold() in (*YES, *NO):
        return text.casefold() in YES
    if kind is bool:
        raise UsageError("{name} is {value!r}; give yes or no.", name=variable(spec.name), value=text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            wanted = (
                "{name} is {value!r}; give a whole number." if kind is int else "{name} is {value!r}; give a number."
            )
            raise UsageError(wanted, name=variable(spec.name), value=text) from None
    return text
