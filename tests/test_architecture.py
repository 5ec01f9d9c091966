"""The rules of who may import whom, and how big a room may be. A failing test says what to do instead."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import scope_edge

PACKAGE = Path(scope_edge.__file__).resolve().parent

# Library -> the files that may import it, relative to the package; a name ending in "/" is a folder.
ROOMS = {
    "onnxruntime": ("encoder.py",),
    "tokenizers": ("encoder.py", "doctor.py"),
    "hnswlib": ("hnsw.py", "doctor.py"),
    "httpx": ("chat/transport.py",),
    "httpx_sse": ("chat/transport.py",),
    "anyio": ("chat/transport.py", "server/"),
    "llama_cpp": ("llama/", "doctor.py"),
    "msgpack": ("packs.py", "llama/"),
    "sqlite3": ("database.py",),
    "tomlkit": ("pools.py", "estimator/installed.py"),
    "click": ("cli/",),
    "jinja2": ("llama/chat_template.py",),
    "keyring": ("chat/keys.py",),
    "gguf": ("estimator/convert.py",),
    "safetensors": ("estimator/checkpoint.py",),
    "huggingface_hub": ("remote.py",),
    "pyarrow": ("estimator/tables.py",),
    "scipy": ("learning/",),
    "sklearn": ("evaluating/baselines.py",),
    "matplotlib": ("plotting/",),
    "starlette": ("server/",),
    "uvicorn": ("server/",),
    "prometheus_client": ("server/metrics.py",),
}
# What opens connections, or is used to. remote.py and chat/transport.py may; cli/server_client.py may to the user's own server
# on this machine, and refuses every other address (tests/test_contact.py). The llama worker talks over pipes; server/ only listens.
NETWORK = (
    "aiohttp",
    "ftplib",
    "http",
    "httpx",
    "requests",
    "smtplib",
    "socket",
    "ssl",
    "telnetlib",
    "urllib",
    "urllib3",
)
REMOTE = ("remote.py", "chat/transport.py", "cli/server_client.py")
# Training and conversion belong to build_scripts/: a user never installs these. What evaluating needs is another matter.
BUILD_ONLY = ("build_scripts", "onnx", "pandas", "torch", "transformers")
# `router.py` may import these of the package and nothing else: words, errors and the contracts between parts.
ROUTER_KNOWS = ("errors", "records", "protocols")
HEAVY = (
    "starlette",
    "uvicorn",
    "prometheus_client",
    "http",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "hnswlib",
    "llama_cpp",
    "matplotlib",
)
# Who may know the settings: the file itself and its edits, the factories, and what is an orchestration of its own.
# remote.py asks for `offline` alone, at the moment of a download.
KNOW_SETTINGS = (
    "config.py",
    "pools.py",
    "assemble.py",
    "api.py",
    "doctor.py",
    "remote.py",
    "estimator/use.py",
    "evaluating/run.py",
    "cli/",
    "contact/",
    "server/",
)
MAX_LINES = 350
MAX_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    """One imported module, with its line; `lazy` inside a function, `typing` under TYPE_CHECKING."""

    module: str
    line: int
    lazy: bool
    typing: bool


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> list[Import]:
    """Every import of a file. `from a import b` counts as a.b when that is a module of the package, as a otherwise."""
    return list(_walk(ast.parse(path.read_text("utf-8")), path, lazy=False, typing=False))


def _walk(node: ast.AST, path: Path, *, lazy: bool, typing: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, lazy, typing) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, path)
        for module in {_module(base, alias.name) for alias in node.names}:
            yield Import(module, node.lineno, lazy, typing)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk(child, path, lazy=lazy, typing=True)
        for child in node.orelse:
            yield from _walk(child, path, lazy=lazy, typing=typing)
    else:
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, path, lazy=inside, typing=typing)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = ("scope_edge", *path.relative_to(PACKAGE).parts[:-1])
    base = package[: len(package) - node.level + 1]
    return ".".join((*base, node.module) if node.module else base)


def _module(base: str, imported: str) -> str:
    return f"{base}.{imported}" if _file(f"{base}.{imported}") else base


def _file(module: str) -> Path | None:
    """The file of one of the package's modules, None for anybody else's."""
    top, *rest = module.split(".")
    if top != "scope_edge":
        return None
    path = PACKAGE.joinpath(*rest)
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def allowed(file: str, rooms: tuple[str, ...]) -> bool:
    return any(file.startswith(room) if room.endswith("/") else file == room for room in rooms)


def test_the_package_has_files_and_their_imports_are_seen() -> None:
    seen = {name(path): {found.module for found in imports(path)} for path in sources()}
    assert "onnxruntime" in seen["encoder.py"], "a lazy import is not seen: the other tests here would prove nothing"
    assert "scope_edge.records" in seen["router.py"]


@pytest.mark.parametrize("library", sorted(ROOMS))
def test_a_library_lives_in_one_room(library: str) -> None:
    rooms = ROOMS[library]
    strays = [
        f"{name(path)}:{found.line}"
        for path in sources()
        for found in imports(path)
        if found.module.split(".")[0] == library and not found.typing and not allowed(name(path), rooms)
    ]
    assert not strays, f"{library} belongs to {rooms[0]}, so that replacing it touches one room; call that: {strays}"


def test_nothing_opens_a_connection() -> None:
    strays = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in sources()
        for found in imports(path)
        if found.module.split(".")[0] in NETWORK
        and name(path) not in REMOTE
        and not found.module.startswith("urllib.parse")
    ]
    assert not strays, f"scope-edge works offline; only {' and '.join(REMOTE)} may open a connection: {strays}"


def test_nothing_from_the_build_is_used_at_run_time() -> None:
    strays = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in sources()
        for found in imports(path)
        if found.module.split(".")[0] in BUILD_ONLY
    ]
    assert not strays, f"these are installed only where assets are built; do it in build_scripts/: {strays}"


def test_the_router_knows_only_words_and_protocols() -> None:
    known = {f"scope_edge.{module}" for module in ROUTER_KNOWS}
    strays = [
        f"line {found.line}: {found.module}"
        for found in imports(PACKAGE / "router.py")
        if found.module.split(".")[0] not in sys.stdlib_module_names and found.module not in known and not found.typing
    ]
    assert not strays, f"router.py runs the flow on Protocols; give it the part through assemble.py: {strays}"


def test_only_assemble_and_the_commands_put_a_router_together() -> None:
    strays = [
        f"{name(path)}:{found.line}"
        for path in sources()
        for found in imports(path)
        if found.module == "scope_edge.assemble"
        and not allowed(name(path), ("api.py", "cli/", "server/", "doctor.py", "evaluating/"))
    ]
    assert not strays, f"assemble.py sits on top of the library; take the part you need as an argument: {strays}"


def test_settings_stop_at_the_factory() -> None:
    strays = [
        f"{name(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and _absolute(node, path) == "scope_edge.config"
        and {alias.name for alias in node.names} & {"Settings", "load_settings"}
        and not allowed(name(path), KNOW_SETTINGS)
    ]
    assert not strays, (
        "a part takes the two or three values it uses, as keywords or a small dataclass of its own;"
        f" let assemble.py take them from the settings: {strays}"
    )


def test_the_library_does_not_know_its_commands() -> None:
    strays = [
        f"{name(path)}:{found.line}"
        for path in sources()
        for found in imports(path)
        if found.module.startswith("scope_edge.cli") and not allowed(name(path), ("cli/", "__main__.py"))
    ]
    assert not strays, f"a command calls the library, never the other way; move what is shared out of cli/: {strays}"


def test_there_is_no_import_cycle() -> None:
    graph = {
        path: {
            file
            for found in imports(path)
            if not found.lazy and not found.typing and (file := _file(found.module)) not in (None, path)
        }
        for path in sources()
    }
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        cycle = " -> ".join(name(one) for one in (*trail, path))
        assert path not in trail, f"import cycle {cycle}; move what both need into a room of its own"
        if path not in done:
            for other in graph[path]:
                if other is not None:
                    visit(other, (*trail, path))
            done.add(path)

    for path in sources():
        visit(path, ())


@pytest.mark.parametrize("path", sources(), ids=name)
def test_rooms_are_small_and_print_only_in_the_cli(path: Path) -> None:
    text = path.read_text("utf-8")
    lines = len(text.splitlines())
    assert lines <= MAX_LINES, f"{name(path)} has {lines} lines; part it where it does two things"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= MAX_FUNCTION, f"{name(path)}:{node.lineno} {node.name} has {size} lines; name its steps"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert name(path).startswith("cli/"), f"{name(path)}:{node.lineno} prints; return it and let cli/ print"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            broad = caught in ("", "BaseException", "Exception")
            assert not broad, f"{name(path)}:{node.lineno} catches anything; name the errors that are expected"


@pytest.mark.parametrize("module", ["scope_edge", "scope_edge.cli"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    loaded = _loaded_by(f"import {module}")
    assert not loaded, f"import {module} loads {loaded}, which makes --help slow; import it inside the function"


@pytest.mark.parametrize("arguments", [["--help"], ["route", "--help"], ["--version"]])
def test_asking_for_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = _loaded_by(
        f"""
        import contextlib, io
        from scope_edge.cli import main
        sys.argv = ["scope-edge", *{arguments!r}]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main()
        """
    )
    assert not loaded, f"scope-edge {' '.join(arguments)} loads {loaded}; import it inside the function"


def _loaded_by(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has loaded after running `code`."""
    script = f"import json, sys\n{textwrap.dedent(code)}\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded
