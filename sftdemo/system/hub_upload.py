"""A folder onto the Hub, sent by a process of its own that is watched: `python -m sftdemo.system.hub_upload`, asked on stdin.

The process has the owner's token from its environment or from where `hf auth login` keeps it, and says nothing of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.system import hub

FIRST_SECONDS = 30.0  # until the repository is there; the Hub's client alone takes seconds to import on a small machine
READ_SECONDS = 60.0  # for the answer to one request; a commit of large files takes the Hub a while
MOST_ATTEMPTS = 2  # at one request; its own client makes six, and waits longer each time
AT_FIRST = ".gitattributes"  # which the Hub puts into every new repository


class Stopped(KeyboardInterrupt):
    """An upload was stopped; `before` is the commit that its repository had then, "" where that isn't known."""

    def __init__(self, before: str) -> None:
        super().__init__()
        self.before = before


def never() -> bool:
    return False


def upload(
    folder: Path,
    repository: str,
    kind: str,
    public: bool,
    ours: bool,
    created: Callable[[], None],
    should_stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Make a repository (`kind` model or dataset) hold the files of a folder and no others; {"url", "commit", "private"}.

    `ours` says that it may be there already; without that a name that is taken is refused. `created` is called as soon as
    the repository is there. Raises UserError with one line for each way that it can fail, and Stopped where it is told to
    stop; the Hub takes all files in one commit, so that it has all of them or none.
    """
    request = {
        "folder": str(folder.resolve()),
        "repository": repository,
        "kind": kind,
        "public": public,
        "ours": ours,
        "seconds": READ_SECONDS,
    }
    reply = in_child(request, created, should_stop)
    if fault := reply.get("fault"):
        raise UserError(_fault(fault, repository, reply.get("reason", "")))
    return reply


def states(repositories: Mapping[str, str]) -> list[Text]:
    """What is on the Hub now of repositories (of data sets as datasets/OWNER/NAME), each in a few words; their values are the
    commits that they had before, "" where that isn't known."""
    request = {"look": list(repositories), "seconds": READ_SECONDS}
    reply = in_child(request, lambda: None, never)
    if "fault" in reply:
        return [Text("{repository} can't be seen", repository=repository) for repository in repositories]
    return [_state(repository, before, reply[repository]) for repository, before in repositories.items()]


def _state(repository: str, before: str, held: dict[str, Any] | None) -> Text:
    if held is None:
        return Text("{repository} isn't there", repository=repository)
    if before and held["commit"] != before:
        return Text("{repository} has all that was sent", repository=repository)
    if held["files"]:
        return Text("{repository} is as it was before", repository=repository)
    return Text("{repository} is there, without any file", repository=repository)


def _fault(kind: str, repository: str, reason: str) -> Text:
    texts = {
        "token": Text("There is no token for the Hub; set HF_TOKEN, or sign in with `hf auth login`."),
        "offline": Text("HF_HUB_OFFLINE is set, so nothing is sent to the Hub; unset it."),
        "network": Text("The Hub can't be reached ({reason}); check the network.", reason=reason),
        "silent": Text("The Hub doesn't answer in time; try again later."),
        "busy": Text("The Hub has a fault of its own ({reason}); try again later.", reason=reason),
        "401": Text(
            "The Hub doesn't know the token (401); set a valid one as HF_TOKEN, or sign in again with `hf auth login`."
        ),
        "403": Text(
            "The token may not write {repository} ({reason}); give one that may, or another owner's name.",
            repository=repository,
            reason=reason,
        ),
        "taken": Text(
            "There is a repository {repository} already that wasn't made from this run; choose another name.",
            repository=repository,
        ),
        "public": Text(
            "The repository {repository} is public; push with --public, or make it private on the Hub first.",
            repository=repository,
        ),
        "quota": Text("The Hub doesn't take that much ({reason}); make room there, or push less.", reason=reason),
        "card": Text("The Hub refuses the card's metadata: {reason}.", reason=reason),
    }
    return texts.get(kind) or Text("The Hub did not take {repository}: {reason}.", repository=repository, reason=reason)


def in_child(request: dict[str, Any], created: Callable[[], None], should_stop: Callable[[], bool]) -> dict[str, Any]:
    """The last word of the process that sends; a fault where it takes too long, Stopped where it is told to stop."""
    with tempfile.TemporaryDirectory() as box:
        input_, output, progress = (Path(box) / name for name in ("request", "replies", "progress"))
        input_.write_text(json.dumps({**request, "parent": os.getpid()}), encoding="utf-8")
        # Bars on stderr tell that bytes go out; the plain way of uploading has them, and limits of time that hold.
        variables = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "0", **hub.IN_TIME}
        with input_.open("rb") as stdin, output.open("wb") as stdout, progress.open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "sftdemo.system.hub_upload"],
                env=hub.environment(**variables),
                cwd=Path(__file__).parents[2],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            return _last_word(child, output, progress, created, should_stop)
        except KeyboardInterrupt as stopped:
            hub.end(child)
            words = _words(output)
            if any("absent" in word for word in words):  # it may be there by now, and is the asker's own then
                created()
            raise Stopped(next((word["before"] for word in words if word.get("created")), "")) from stopped
        finally:
            hub.end(child)


def _words(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _last_word(
    child: subprocess.Popen[bytes],
    output: Path,
    progress: Path,
    created: Callable[[], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    start = last = time.monotonic()
    seen, is_there = (0, 0.0), False
    while True:
        ended = child.poll() is not None
        lines = _words(output)
        if not is_there and any(line.get("created") for line in lines):
            is_there, last = True, time.monotonic()
            created()
        if ended:
            reason = f"the upload ended with exit status {child.returncode}"
            is_last = lines and not {"absent", "created"} & set(lines[-1])
            return lines[-1] if is_last else {"fault": "other", "reason": reason}
        if should_stop():
            raise KeyboardInterrupt
        now, state = time.monotonic(), (progress.stat().st_size, hub.work_of(child.pid))
        if state[0] != seen[0] or state[1] >= seen[1] + 1:
            last, seen = now, state
        too_late = now - last > hub.STALL_SECONDS or now - start > hub.TOTAL_SECONDS
        if too_late or (not is_there and now - start > FIRST_SECONDS):
            return {"fault": "silent"}
        time.sleep(hub.POLL_SECONDS)


# What follows runs in the process that is watched.


def replies(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """{"absent"} where there is no such repository yet, {"created", "before": its commit} once it is there, then what `upload`
    returns; of a look at several, by name, what each holds. At any place the fault."""
    from huggingface_hub import get_token

    work = _look if "look" in request else _send
    try:
        yield from work(request) if get_token() else [{"fault": "token"}]
    except Exception as error:  # noqa: BLE001 (each becomes one line)
        fault, reason = _fault_of(error)
        yield {"fault": fault, "reason": reason}


def _send(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Create the repository, and commit the folder to it."""
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.errors import HfHubHTTPError

    set_client_factory(lambda: _client(request["seconds"]))
    api, where = HfApi(), {"repo_id": request["repository"], "repo_type": request["kind"]}
    if not request["ours"] and not api.repo_exists(**where):
        yield {"absent": True}
    try:
        api.create_repo(**where, private=not request["public"])
    except HfHubHTTPError as error:
        if error.response.status_code != 409 or not request["ours"]:
            raise
    info = api.repo_info(**where)
    if not info.private and not request["public"]:
        yield {"fault": "public"}
        return
    yield {"created": True, "before": info.sha or ""}
    folder = Path(request["folder"])
    local = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    stale = {*api.list_repo_files(**where)} - local  # of another format, which would be loaded with the new files
    commit = api.upload_folder(
        **where, folder_path=folder, commit_message="Upload by sftdemo", delete_patterns=sorted(stale) or None
    )
    url = str(commit.commit_url).partition("/commit/")[0]
    yield {"url": url, "commit": commit.oid, "private": bool(info.private)}


def _look(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What each repository holds, None where there is none."""
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.errors import RepositoryNotFoundError

    set_client_factory(lambda: _client(request["seconds"]))
    held: dict[str, Any] = {}
    for name in request["look"]:
        kind, repository = ("dataset", name.removeprefix("datasets/")) if name.count("/") > 1 else ("model", name)
        try:
            info = HfApi().repo_info(repository, repo_type=kind)
            files = [file.rfilename for file in info.siblings or () if file.rfilename != AT_FIRST]
            held[name] = {"commit": info.sha or "", "files": files}
        except RepositoryNotFoundError:
            held[name] = None
    yield held


def _client(seconds: float) -> Any:
    """The Hub's own HTTP client, which would wait for ever, and try for minutes what fails."""
    from huggingface_hub.utils._http import default_client_factory

    attempts: Counter[str] = Counter()

    def count(request: Any) -> None:
        url = str(request.url)
        if request.method == "PUT" or "/preupload/" in url or url.endswith("/objects/batch"):  # what is tried again
            attempts[url] += 1
            if attempts[url] > MOST_ATTEMPTS:
                raise TimeoutError("it failed before")

    client = default_client_factory()
    client.timeout = seconds
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], count]}
    return client


def _fault_of(error: BaseException) -> tuple[str, str]:
    """Which fault an error of the Hub's client is, and the Hub's own reason, without any token."""
    from huggingface_hub import get_token

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) and cause not in chain:
        chain.append(cause)
    answered: Any = next((each for each in chain if getattr(each, "response", None) is not None), None)
    reason = " ".join(str(getattr(answered, "server_message", None) or answered or error).split())
    if token := get_token():
        reason = reason.replace(token, "…")
    return _kind(chain, answered, reason), reason.rstrip(".")[:200]


def _kind(chain: list[BaseException], answered: Any, reason: str) -> str:
    status = answered.response.status_code if answered else 0
    names = {base.__name__ for each in chain for base in type(each).__mro__}
    if "Invalid metadata" in str(chain[0]):
        return "card"
    if status in (402, 413, 507) or (status == 403 and re.search(r"storage|quota|limit", reason, re.IGNORECASE)):
        return "quota"
    if status in (401, 403, 404, 409):  # of what a token may not see the Hub says that it isn't there
        return {401: "401", 409: "taken"}.get(status, "403")
    if status == 429 or status >= 500:
        return "busy"
    if status:
        return "other"
    if "OfflineModeIsEnabled" in names:
        return "offline"
    if any("Timeout" in name for name in names):
        return "silent"
    return "network" if names & {"TransportError", "ConnectionError"} else "other"


def _end_with(parent: int) -> None:
    """Whoever asked was killed: nothing is to reach the Hub of which nobody knows."""
    while os.getppid() == parent:
        time.sleep(hub.POLL_SECONDS)
    os._exit(1)


def main() -> None:
    """Answer the question on stdin."""
    request = json.load(sys.stdin)
    threading.Thread(target=_end_with, args=(request["parent"],), daemon=True).start()
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    for line in replies(request):
        print(json.dumps(line), file=reply, flush=True)


if __name__ == "__main__":
    main()
