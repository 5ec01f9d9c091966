"""Downloads from the Hugging Face hub. Beside chat/transport.py the only file that opens a connection to the internet.

A revision is resolved to a commit first, and that commit's files are fetched. `hf_hub_download` is not used: since its
release 1 it deletes what an interrupted download has got so far, and a checkpoint has gigabytes. `http_get`, which it is made
of, continues a part. A part becomes a file only when its hash is the hub's. The client's cache, accelerators, telemetry and
stored login stay unused: the token comes from the variable HF_TOKEN alone. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from scope_edge._version import __version__
from scope_edge.errors import MissingExtraError, RemoteError, UsageError
from scope_edge.storage import assets
from scope_edge.storage.files import check_space, file_digest

Kind = Literal["model", "dataset"]
# (what is being done, bytes done, bytes in all)
Progress = Callable[[str, int, int], None]

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,200})?")
_TIMEOUT = 20.0
# Of one file, in one call.
_ATTEMPTS = 20
# The client reads these while it is imported: plain downloads only, nothing printed.
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
    """A file of a commit; size in bytes. sha256: hex, None where the hub keeps it in git; blob: then its git hash."""

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

    def missing_bytes(self, paths: Iterable[str]) -> int:
        """What is left to download of these files, in bytes."""
        sizes = {file.path: file.size for file in self.files}
        parts = (self.folder / f"{path}{ending}" for path in paths for ending in ("", ".part"))
        return max(0, sum(sizes[path] for path in paths) - sum(one.stat().st_size for one in parts if one.is_file()))


def is_hub_id(text: str) -> bool:
    """Whether a text reads like OWNER/NAME or OWNER/NAME@REVISION."""
    return bool(_ID.fullmatch(text))


def look_up(source: str, kind: Kind = "model", *, offline: str | None = None) -> HubRepo:
    """List what a repository holds at a revision (OWNER/NAME@REVISION; by default its main branch), pinned to a commit.

    offline: what forbids connections (the setting's origin); None = they are allowed.

    Raises UsageError (not an id, offline, no such repository or revision), RemoteError (no connection, refused, a senseless
    answer), MissingExtraError.
    """
    if not is_hub_id(source):
        raise UsageError(f"{source!r} is not a hub id; write OWNER/NAME or OWNER/NAME@REVISION")
    name, _, revision = source.partition("@")
    if offline is not None:
        raise UsageError(
            f"{name} is not downloaded: offline is set by {offline}; unset it, or give a file or folder that is here"
        )
    with _translated(name, kind, revision) as hub:
        api = hub.HfApi(endpoint=endpoint(), token=_token() or False)
        info = api.repo_info(name, repo_type=kind, revision=revision or None, files_metadata=True, timeout=_TIMEOUT)
    files = tuple(_file(name, one) for one in info.siblings or ())
    if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha)):
        raise RemoteError(f"{name}: {endpoint()} names no commit ({str(info.sha)[:60]!r}); is HF_ENDPOINT a hub?")
    licence = (getattr(info, "card_data", None) or {}).get("license")
    licences = licence if isinstance(licence, (list, tuple)) else [licence] if licence else []
    return HubRepo(name, kind, info.sha, files, ", ".join(map(str, licences)) or None)


def fetch(repo: HubRepo, paths: Iterable[str], progress: Progress | None = None) -> Path:
    """Download files of a repository; return the folder they are in, under their paths. Complete files stay.

    Interrupted at any point, killed included, the next call goes on where this one stopped.
    Raises UsageError (a path that is not in the repository), RemoteError (no connection, refused, damaged on the way),
    AssetError (no space), MissingExtraError.
    """
    by_path, wanted = {file.path: file for file in repo.files}, list(paths)
    for path in wanted:
        if path not in by_path:
            raise UsageError(f"{repo.id}@{repo.commit[:12]}: has no file {path!r}; see its page on the hub")
    missing = [path for path in wanted if not _complete(repo, by_path[path])]
    check_space(repo.folder, repo.missing_bytes(missing), f"{repo.id}: the download")
    for path in missing:
        _download(repo, by_path[path], progress)
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
    """Continue a file's part or begin one, check the hash, and only then give it its name."""
    target = repo.folder / file.path
    part = target.with_name(f"{target.name}.part")
    with _translated(repo.id, repo.kind, repo.commit) as hub:
        target.parent.mkdir(parents=True, exist_ok=True)
        url = hub.hf_hub_url(repo.id, file.path, repo_type=repo.kind, revision=repo.commit, endpoint=endpoint())
        # Two processes that download the same file take turns: the second finds it complete.
        with hub.utils.WeakFileLock(f"{part}.lock"):
            if _complete(repo, file):
                return
            with _Part(part, file, progress) as sink:
                _transfer(hub, url, sink, file.size)
            problem = _wrong(part, file, progress)
            if problem is not None:
                part.unlink()
                raise RemoteError(f"{repo.id}: {file.path} came damaged ({problem}); it was deleted, run it again")
            part.replace(target)


def _transfer(hub: Any, url: str, part: _Part, size: int) -> None:
    """Append what is missing of a file, and go on after a broken connection as long as more has come."""
    # Compressed on the way, a file cannot be continued in the middle.
    headers = {"user-agent": f"scope-edge/{__version__}", "accept-encoding": "identity"}
    if token := _token():
        headers["authorization"] = f"Bearer {token}"
    for attempt in range(1, _ATTEMPTS + 1):
        begun = part.seek(0, os.SEEK_END)
        if begun > size:  # another file's part, or from a server that ignores ranges
            begun = part.truncate(0)
        if begun == size:
            return
        try:
            hub.file_download.http_get(url, part, resume_size=begun, headers=headers, expected_size=size)
            return
        except _failures(hub) as error:
            answered = getattr(error, "response", None) is not None
            if answered or attempt == _ATTEMPTS or part.seek(0, os.SEEK_END) == begun:
                raise


class _Part(FileIO):
    """What is there of a file, to append to: unbuffered, so that a kill loses nothing, and reported as it grows."""

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
    # git puts a header before what it hashes.
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    found = file_digest(path, digest, partial(progress, f"checking {file.path}") if progress else None)
    expected = file.sha256 or file.blob
    return None if expected in (None, found) else f"expected hash {str(expected)[:12]}…, found {found[:12]}…"


def _token() -> str | None:
    return os.environ.get("HF_TOKEN", "").strip() or None


def _file(name: str, sibling: Any) -> HubFile:
    """A file of the hub's answer. Raises RemoteError: its size or hash is missing, or its path leads out of the folder."""
    path, size, lfs = str(sibling.rfilename), sibling.size, sibling.lfs
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    steps = path.split("/")
    sound = all(step not in ("", ".", "..") for step in steps) and "\\" not in path and ":" not in steps[0]
    hashed = not lfs or re.fullmatch(r"[0-9a-f]{64}", str(sha256))
    if not (sound and hashed and path.isprintable() and isinstance(size, int) and size >= 0):
        raise RemoteError(f"{name}: {endpoint()} describes an impossible file ({path[:80]!r}); is HF_ENDPOINT a hub?")
    return HubFile(path, size, sha256, None if sha256 else getattr(sibling, "blob_id", None))


def _client() -> Any:
    """Import the hub's client with everything but plain downloads off. Raises MissingExtraError."""
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
        for name in _CLIENT:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})
    client: Any = huggingface_hub
    client.utils.logging.set_verbosity_error()
    return client


@contextlib.contextmanager
def _translated(name: str, kind: Kind, revision: str) -> Iterator[Any]:
    """Yield the client, and raise its errors in our words: the one place that knows them."""
    hub = _client()
    errors = hub.errors
    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        yield hub
    except errors.GatedRepoError as error:
        raise RemoteError(
            f"{name} is gated: accept its terms at {page}, then set HF_TOKEN to a token of yours"
        ) from error
    except errors.RepositoryNotFoundError as error:
        hint = "the token in HF_TOKEN may not see it" if _token() else "set HF_TOKEN if it is private"
        raise UsageError(f"no {kind} {name} at {endpoint()}; check the id, and {hint}") from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{name} has no revision {revision!r}; see {page}") from error
    except errors.EntryNotFoundError as error:
        raise RemoteError(f"{name}: a file of {revision} is gone from the hub; see {page}") from error
    except errors.OfflineModeIsEnabled as error:
        raise UsageError(f"{name} is not downloaded: HF_HUB_OFFLINE is set; unset it") from error
    except _failures(hub) as error:
        raise RemoteError(f"{name}: {_reason(error)}") from error


def _failures(hub: Any) -> tuple[type[Exception], ...]:
    """What goes wrong on the way: errors of httpx in the client's newer versions, of requests in its older ones."""
    return (OSError, *hub.errors.HfHubHTTPError.__bases__)


def _reason(error: Exception) -> str:
    """Why a download failed, with what to do. Never the request's headers: they hold the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    again = "run it again to go on where it stopped"
    if status in (401, 403):
        return f"the hub refuses (HTTP {status}); check that HF_TOKEN is a valid token that may read it"
    if status is not None:
        return f"the hub answers with an error (HTTP {status}); {again} later"
    if isinstance(error, OSError) and (error.filename is not None or error.errno in (28, 122)):
        where = error.filename or assets.user_cache_dir()
        return f"{where} cannot be written ({error.strerror}); check its permissions and space, then {again}"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the connection to {endpoint()} failed ({text}); check the network, then {again}"
