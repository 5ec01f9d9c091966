"""Downloads from the Hugging Face hub. Beside chat/transport.py the only room that opens a connection, when asked to.

A revision is resolved to a commit first, and that commit's files are fetched. The hub client's own cache, accelerators,
telemetry and stored login are not used: it throws away what an interrupted download has got so far (since its 1.0), and a
checkpoint has gigabytes. Here a part is kept, continued by the next call, and becomes a file only when its hash is the
hub's. The token comes from the variable HF_TOKEN alone; HF_ENDPOINT names another hub; the setting `offline` forbids it all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scope_edge import __version__, assets
from scope_edge.errors import MissingExtraError, RemoteError, UsageError
from scope_edge.estimator.files import in_words

Kind = Literal["model", "dataset"]
# (what is being done, bytes done, bytes in all)
Progress = Callable[[str, int, int], None]

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[\w./-]{1,200}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 20.0
# Of one file, in one call.
_ATTEMPTS = 20
_BLOCK = 4 * 1024 * 1024
# Left free on the disk: a system without any space does odd things.
_SPARE = 256 * 1024 * 1024
# Read by the client while it is imported: nothing but plain downloads, and nothing printed.
_CLIENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_ENABLE_HF_TRANSFER": "0",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_DEBUG": "0",
}


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit. sha256: hex, None where the hub keeps it in git; blob: then its git hash. size: bytes."""

    path: str
    size: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository at one commit. licence: as its card says, None = says nothing."""

    id: str
    kind: Kind
    commit: str
    files: tuple[HubFile, ...]
    licence: str | None

    @property
    def folder(self) -> Path:
        """Where its files are downloaded to, in the cache folder."""
        return assets.user_cache_dir() / "hub" / f"{self.kind}s--{self.id.replace('/', '--')}" / self.commit


def is_hub_id(text: str) -> bool:
    """Whether a text reads like OWNER/NAME or OWNER/NAME@REVISION."""
    name, at, revision = text.partition("@")
    return bool(_ID.fullmatch(name)) and bool(not at or _REVISION.fullmatch(revision))


def look_up(source: str, kind: Kind = "model") -> HubRepo:
    """What a repository holds at a revision (OWNER/NAME@REVISION; none given = its main branch), pinned to a commit.

    Raises UsageError (not an id, offline is set, no such repository or revision), RemoteError (no connection, refused,
    an answer that makes no sense), MissingExtraError.
    """
    if not is_hub_id(source):
        raise UsageError(f"{source!r} is not a hub id; write OWNER/NAME or OWNER/NAME@REVISION")
    name, _, revision = source.partition("@")
    _refuse_offline(name)
    with _translated(name, kind, revision or None) as hub:
        api = hub.HfApi(endpoint=endpoint(), token=_token() or False)
        info = api.repo_info(name, repo_type=kind, revision=revision or None, files_metadata=True, timeout=_TIMEOUT)
        files = tuple(_file(name, one) for one in info.siblings or ())
        commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise RemoteError(f"{name}: {endpoint()} names no commit ({commit[:60]!r}); is HF_ENDPOINT a hub?")
    return HubRepo(name, kind, commit, files, _licence(getattr(info, "card_data", None)))


def fetch(repo: HubRepo, paths: Iterable[str], progress: Progress | None = None) -> Path:
    """Download files of a repository; give the folder they are in, under their paths. What is there already stays.

    Interrupted at any point, killed included, the next call goes on where this one stopped.
    Raises UsageError (offline is set, a path that is not in the repository), RemoteError (no connection, refused, damaged on
    the way, no space), MissingExtraError.
    """
    by_path, wanted = {file.path: file for file in repo.files}, list(paths)
    for path in wanted:
        if path not in by_path:
            raise UsageError(f"{repo.id}@{repo.commit[:12]}: has no file {path!r}; see its page on the hub")
    missing = [by_path[path] for path in wanted if not _complete(repo, by_path[path])]
    if missing:
        _refuse_offline(repo.id)
        # Before anything is fetched. What is there of a part needs no more room.
        parts = [repo.folder / f"{file.path}.part" for file in missing]
        there = sum(part.stat().st_size for part in parts if part.is_file())
        needed = _SPARE + sum(file.size for file in missing) - there
        check_space(repo.folder, needed, f"{repo.id} is downloaded to")
    for file in missing:
        _download(repo, file, progress)
    return repo.folder


def discard(repo: HubRepo) -> None:
    """Delete what was downloaded of a repository's commit. What cannot be deleted stays."""
    shutil.rmtree(repo.folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        repo.folder.parent.rmdir()


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one. Raises UsageError."""
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", address):
        raise UsageError(f"HF_ENDPOINT: {address!r} is not an address; write https://HOST, or unset it")
    return address


def _download(repo: HubRepo, file: HubFile, progress: Progress | None) -> None:
    """One file: continue its part or begin one, check the hash, and only then give it its name."""
    target = repo.folder / file.path
    part = target.with_name(f"{target.name}.part")
    with _translated(repo.id, repo.kind, repo.commit) as hub:
        target.parent.mkdir(parents=True, exist_ok=True)
        url = hub.hf_hub_url(repo.id, file.path, repo_type=repo.kind, revision=repo.commit, endpoint=endpoint())
        # Two processes that download the same file take turns: the second finds it whole.
        with hub.utils.WeakFileLock(str(part) + ".lock"):
            if _complete(repo, file):
                return
            with _Part(part, file, progress) as sink:
                _transfer(hub, url, sink, file.size)
            problem = _wrong(part, file, progress)
            if problem is not None:
                part.unlink()
                raise RemoteError(f"{repo.id}: {file.path} came damaged ({problem}); it was thrown away, run it again")
            part.replace(target)


def _transfer(hub: Any, url: str, part: _Part, size: int) -> None:
    """Append what is missing of a file. Broken off, it goes on at once as long as more has come. Raises as the client does."""
    for attempt in range(1, _ATTEMPTS + 1):
        # More than the whole file is another file's part, or came from a server that knows no ranges.
        begun = part.seek(0, os.SEEK_END)
        if begun > size:
            begun = part.truncate(0)
        if begun == size:
            return
        try:
            hub.file_download.http_get(url, part, resume_size=begun, headers=_headers(), expected_size=size)
            return
        except _failures(hub) as error:
            answered = getattr(error, "response", None) is not None
            if answered or attempt == _ATTEMPTS or part.seek(0, os.SEEK_END) == begun:
                raise


class _Part(io.FileIO):
    """What there is of a file, to append to. What is written is on its way to the disk at once, and is told of."""

    def __init__(self, path: Path, file: HubFile, progress: Progress | None) -> None:
        super().__init__(path, "ab")
        self._file, self._progress = file, progress

    def write(self, chunk: Any) -> int:
        view = memoryview(chunk)
        while view:
            view = view[super().write(view) :]
        if self._progress is not None:
            self._progress(f"downloading {self._file.path}", self.tell(), self._file.size)
        return len(chunk)


def _complete(repo: HubRepo, file: HubFile) -> bool:
    """Whether the file is there and is what the hub has. A damaged one is deleted."""
    target = repo.folder / file.path
    try:
        if _wrong(target, file, None) is None:
            return True
        target.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RemoteError(f"{target}: cannot be read ({error.strerror or error}); check its permissions") from error
    return False


def _wrong(path: Path, file: HubFile, progress: Progress | None) -> str | None:
    """What is wrong with a downloaded file, in words; None = nothing. Raises OSError."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes where the hub says {file.size}"
    # git hashes a file with a head of its own.
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    done = 0
    with path.open("rb") as raw:
        while block := raw.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(f"checking {file.path}", done, size)
    expected, found = file.sha256 or file.blob, digest.hexdigest()
    return None if expected in (None, found) else f"expected hash {str(expected)[:12]}…, found {found[:12]}…"


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise RemoteError when a folder's disk has not `needed` bytes free. `what` begins the error's explanation."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise RemoteError(
            f"{there}: {in_words(free)} free where {in_words(needed)} are needed; {what} {folder}:"
            " free some space, or point SCOPE_EDGE_CACHE_DIR and SCOPE_EDGE_DATA_DIR at another disk"
        )


def _refuse_offline(name: str) -> None:
    from scope_edge.config import load_settings

    settings = load_settings()
    if settings.offline:
        origin = settings.origin["offline"]
        raise UsageError(
            f"{name} is not downloaded: offline is set by {origin}; unset it, or give a file or folder that is here"
        )


def _token() -> str | None:
    return os.environ.get("HF_TOKEN", "").strip() or None


def _headers() -> dict[str, str]:
    # Compressed on the way, a file cannot be continued in the middle.
    headers = {"user-agent": f"scope-edge/{__version__}", "accept-encoding": "identity"}
    return headers | ({"authorization": f"Bearer {token}"} if (token := _token()) else {})


def _file(name: str, sibling: Any) -> HubFile:
    """A file of the hub's answer. Raises RemoteError: a size is missing, a hash is none, a path leads out of the folder."""
    path, size, lfs = str(sibling.rfilename), sibling.size, sibling.lfs
    sha256 = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) if lfs else None
    blob = getattr(sibling, "blob_id", None)
    steps = path.split("/")
    sound = all(step not in ("", ".", "..") for step in steps) and "\\" not in path and ":" not in steps[0]
    hashed = re.fullmatch(r"[0-9a-f]{64}", str(sha256)) if lfs else True
    if not (sound and hashed and path.isprintable() and isinstance(size, int) and size >= 0):
        raise RemoteError(
            f"{name}: {endpoint()} describes a file that cannot be ({path[:80]!r}); is HF_ENDPOINT a hub?"
        )
    return HubFile(path, size, sha256, None if sha256 else blob)


def _licence(card: Any) -> str | None:
    text = card.get("license") if hasattr(card, "get") else None
    return ", ".join(map(str, text)) if isinstance(text, (list, tuple)) else str(text) if text else None


def _client() -> Any:
    """The hub's client, imported with everything but plain downloads off. Raises MissingExtraError."""
    before = {name: os.environ.get(name) for name in _CLIENT}
    os.environ.update(_CLIENT)
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError as error:
        raise MissingExtraError(
            f'downloading needs huggingface_hub ({error}); pip install "scope-edge[hub]"'
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    client: Any = huggingface_hub
    client.utils.logging.set_verbosity_error()
    return client


@contextlib.contextmanager
def _translated(name: str, kind: Kind, revision: str | None) -> Iterator[Any]:
    """The client, with its errors in our words: the one place that knows them."""
    hub = _client()
    errors = hub.errors
    try:
        yield hub
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise _not_found(hub, error, name, kind, revision) from error
    except errors.OfflineModeIsEnabled as error:
        raise UsageError(f"{name} is not downloaded: HF_HUB_OFFLINE is set; unset it") from error
    except _failures(hub) as error:
        raise RemoteError(f"{name}: {_reason(error)}") from error


def _failures(hub: Any) -> tuple[type[Exception], ...]:
    """What goes wrong on the way: errors of httpx in the client's newer versions, of requests in its older ones."""
    return (OSError, *hub.errors.HfHubHTTPError.__bases__)


def _not_found(hub: Any, error: Exception, name: str, kind: Kind, revision: str | None) -> Exception:
    errors = hub.errors
    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if isinstance(error, errors.GatedRepoError):
        return RemoteError(f"{name} is gated: accept its terms at {page}, then set HF_TOKEN to a token of yours")
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"{name} has no revision {revision!r}; see {page}")
    if isinstance(error, errors.EntryNotFoundError):
        return RemoteError(f"{name}: a file of {revision} is gone from the hub; see {page}")
    hint = "the token in HF_TOKEN may not see it" if _token() else "set HF_TOKEN if it is private"
    return UsageError(f"no {kind} {name} at {endpoint()}; check the id, and {hint}")


def _reason(error: Exception) -> str:
    """Why a download failed, in words, with what to do. Never the request's headers: they hold the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    again = "run it again to go on where it stopped"
    if status in (401, 403):
        return f"the hub refuses (HTTP {status}); check that HF_TOKEN is a valid token that may read it"
    if status is not None:
        return f"the hub answers with an error (HTTP {status}); {again} later"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename} cannot be written ({error.strerror}); check its permissions and space"
    if isinstance(error, OSError) and error.errno in (28, 122):
        return f"no space left for it in {assets.user_cache_dir()}; free some, then {again}"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the connection to {endpoint()} failed ({text}); check the network, then {again}"
