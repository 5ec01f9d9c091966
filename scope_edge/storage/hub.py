"""Downloads from the Hugging Face hub. Only this file and providers/openai/transport.py open connections to the internet.

A revision is resolved to a commit first, and the files of that commit are fetched. `hf_hub_download` is not used: since
release 1 it deletes what an interrupted download has received, and a checkpoint has gigabytes. `http_get`, which it is made
of, continues a partial file. A partial file gets its name only when its hash is the hub's. The client's cache, accelerators,
telemetry and stored login stay unused: the token comes from the variable HF_TOKEN alone. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any, Literal

from scope_edge._version import __version__
from scope_edge.errors import MissingExtraError, RemoteError, UsageError
from scope_edge.storage import assets
from scope_edge.storage.files import check_space, file_digest

Kind = Literal["model", "dataset"]
# (current step in words, bytes done, total bytes)
Progress = Callable[[str, int, int], None]

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,200})?")
_TIMEOUT = 20.0
_ATTEMPTS = 20  # for one file, in one call
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# The client reads these while it is imported: plain downloads only, no output.
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
    """A file of a commit; size in bytes. sha256: hex, or None for a file kept in git, which has `blob`, its git hash."""

    path: str
    size: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository at one commit. licence: from its card, None if missing."""

    id: str
    kind: Kind
    commit: str
    files: tuple[HubFile, ...]
    licence: str | None

    @property
    def folder(self) -> Path:
        """The download folder, in the cache."""
        return assets.user_cache_dir() / "hub" / f"{self.kind}s--{self.id.replace('/', '--')}" / self.commit

    def missing_bytes(self, paths: Iterable[str]) -> int:
        """Return how many bytes of these files are left to download."""
        sizes = {file.path: file.size for file in self.files}
        parts = (self.folder / f"{path}{ending}" for path in paths for ending in ("", ".part"))
        return max(0, sum(sizes[path] for path in paths) - sum(one.stat().st_size for one in parts if one.is_file()))


def is_hub_id(text: str) -> bool:
    """Return whether a text looks like OWNER/NAME or OWNER/NAME@REVISION."""
    return bool(_ID.fullmatch(text))


def look_up(source: str, kind: Kind = "model", *, offline: str | None = None) -> HubRepo:
    """List the files of a repository at a revision (OWNER/NAME@REVISION; default: main branch), pinned to a commit.

    offline: the origin of the setting that forbids connections; None = they are allowed.

    Raises UsageError (not an id, offline, unknown repository or revision), RemoteError (no connection, refused, invalid
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
    if isinstance(licence, (list, tuple)):
        licence = ", ".join(map(str, licence))
    return HubRepo(name, kind, info.sha, files, str(licence) if licence else None)


def fetch(repo: HubRepo, paths: Iterable[str], progress: Progress | None = None) -> Path:
    """Download files of a repository into its folder, under their paths; return the folder. Complete files stay.

    After an interruption at any point, even a kill, the next call continues where this one stopped.
    Raises UsageError (a path that is not in the repository), RemoteError (no connection, refused, damaged on the way),
    AssetError (no space), MissingExtraError.
    """
    by_path, wanted = {file.path: file for file in repo.files}, list(paths)
    if unknown := next((path for path in wanted if path not in by_path), None):
        raise UsageError(f"{repo.id}@{repo.commit[:12]}: has no file {unknown!r}; see its page on the hub")
    missing = [path for path in wanted if not _complete(repo, by_path[path])]
    check_space(repo.folder, repo.missing_bytes(missing), f"{repo.id}: the download")
    for path in missing:
        _download(repo, by_path[path], progress)
    return repo.folder


def discard(repo: HubRepo) -> None:
    """Delete the downloaded files of a repository's commit; files that cannot be deleted stay."""
    shutil.rmtree(repo.folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        repo.folder.parent.rmdir()


def endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT, or the public hub. Raises UsageError."""
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", address):
        raise UsageError(f"HF_ENDPOINT: {address!r} is not an address; write https://HOST, or unset it")
    return address


def _download(repo: HubRepo, file: HubFile, progress: Progress | None) -> None:
    """Continue or begin a file's part, check its hash, and only then give it its name."""
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
            problem = _defect(part, file, progress)
            if problem is not None:
                part.unlink()
                raise RemoteError(f"{repo.id}: {file.path} came damaged ({problem}); it was deleted, run it again")
            part.replace(target)


def _transfer(hub: Any, url: str, part: _Part, size: int) -> None:
    """Append the missing bytes; continue after a broken connection as long as more bytes have come."""
    # A file that is compressed on the way cannot be continued in the middle.
    headers = {"user-agent": f"scope-edge/{__version__}", "accept-encoding": "identity"}
    if token := _token():
        headers["authorization"] = f"Bearer {token}"
    for attempt in range(1, _ATTEMPTS + 1):
        begun = part.seek(0, os.SEEK_END)
        if begun > size:  # part of another file, or from a server that ignores ranges
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


class _Part(BufferedWriter):
    """A partial file to append to: flushed with every chunk, so that a kill loses nothing, and reported as it grows."""

    def __init__(self, path: Path, file: HubFile, progress: Progress | None) -> None:
        super().__init__(FileIO(path, "ab"))
        self._file, self._progress = file, progress

    def write(self, chunk: Any) -> int:
        count = super().write(chunk)
        self.flush()
        if self._progress is not None:
            self._progress(f"downloading {self._file.path}", self.tell(), self._file.size)
        return count


def _complete(repo: HubRepo, file: HubFile) -> bool:
    """Return whether the file is here and intact. A damaged one is deleted."""
    target = repo.folder / file.path
    try:
        if target.exists() and _defect(target, file, None) is None:
            return True
        target.unlink(missing_ok=True)
    except OSError as error:
        raise RemoteError(f"{target}: cannot be read ({error.strerror or error}); check its permissions") from error
    return False


def _defect(path: Path, file: HubFile, progress: Progress | None) -> str | None:
    """Return what is wrong with a downloaded file, in words, or None. Raises OSError."""
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
    """Read a file of the hub's answer. Raises RemoteError: its size or hash is missing, or its path leaves the folder."""
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
    before = {name: os.environ[name] for name in _CLIENT if name in os.environ}
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
        os.environ.update(before)
    client: Any = huggingface_hub
    client.utils.logging.set_verbosity_error()
    return client


@contextlib.contextmanager
def _translated(name: str, kind: Kind, revision: str) -> Iterator[Any]:
    """Yield the client; raise its errors as ours."""
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
    except _setup_failures(hub) as error:
        # The client was not even made. The value of a variable may hold a password, and so may the error.
        socks = '; a SOCKS proxy needs socksio, pip install "scope-edge[hub]"' if isinstance(error, ImportError) else ""
        raise RemoteError(f"{name}: {_variables(_PROXIES)} cannot be used{socks}; correct or unset it") from error


def _setup_failures(hub: Any) -> tuple[type[Exception], ...]:
    """Return the errors of making a client; one, for an invalid address, is not among the library's other errors."""
    names = {base.__module__.partition(".")[0] for base in hub.errors.HfHubHTTPError.__bases__}
    found = (getattr(sys.modules.get(name), "InvalidURL", None) for name in names)
    return (ImportError, ValueError, *(one for one in found if one is not None))


def _variables(names: Sequence[str]) -> str:
    return " or ".join(name for name in os.environ if name.upper() in names) or "the system's proxy"


def _failures(hub: Any) -> tuple[type[Exception], ...]:
    """Return the errors of a transfer: httpx's in the client's newer versions, those of requests in older ones."""
    return (OSError, *hub.errors.HfHubHTTPError.__bases__)


def _reason(error: Exception) -> str:
    """Say why a download failed and what to do. The request's headers are never shown: they hold the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    again = "run it again to go on where it stopped"
    if status in (401, 403):
        return f"the hub refuses (HTTP {status}); check that HF_TOKEN is a valid token that may read it"
    if status is not None:
        return f"the hub answers with an error (HTTP {status}); {again} later"
    if isinstance(error, OSError) and error.filename and error.filename == os.environ.get("SSLKEYLOGFILE"):
        return f"SSLKEYLOGFILE cannot be used ({error.strerror}); correct or unset it"
    if isinstance(error, OSError) and (error.filename is not None or error.errno in (28, 122)):
        where = error.filename or assets.user_cache_dir()
        return f"{where} cannot be written ({error.strerror}); check its permissions and space, then {again}"
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return f"{_variables(_CERTIFICATES)} leads to no file; correct or unset it"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the connection to {endpoint()} failed ({text}); check the network, then {again}"
