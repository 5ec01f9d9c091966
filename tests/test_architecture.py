"""The plan of the house: which room may import which, and how big a room may be. A failing test says what to do instead."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import scope_edge

PACKAGE = Path(scope_edge.__file__).resolve().parent
TESTS = Path(__file__).resolve().parent

# The rooms from the ground up. A room imports those above it in this list, never one below.
ROOMS = (
    "types",  # what flows from a query to a decision
    "errors",  # every error a user can meet
    "_version",
    "storage",  # bundled files, packs, SQLite, downloads
    "settings",  # the settings file, its schema, its checks
    "catalog",  # model cards, pools, addresses
    "encoding",  # text -> vector, nearest anchors, token counts
    "pipeline",  # query -> decision, on protocols only
    "estimation",  # vector -> P(correct) and tokens, by item response theory
    "policy",  # estimates -> decision
    "history",  # the journal and feedback
    "providers",  # models that answer: behind endpoints, or GGUFs here
    "estimator",  # the language model that reads the query
    "fingerprinting",  # a model answers the anchors; outcomes imported
    "tuning",  # what alpha buys; a user's own calibration
    "execution",  # decision -> answer, within caps
    "management",  # a user's models: add, test, compare, remove
    "training",  # the bank, the map and the population, learned
    "factory",  # puts the parts together
    "evaluation",  # labelled queries replayed; scores and plots
    "router",  # the public face
    "__init__",
    "server",  # OpenAI-compatible
    "cli",
    "__main__",
)
# Library -> the files that may import it, relative to the package; a name ending in "/" is a folder.
LIBRARIES = {
    "onnxruntime": ("encoding/session.py",),
    "tokenizers": ("encoding/encoder.py", "cli/diagnosis.py"),
    "hnswlib": ("encoding/hnsw.py", "cli/diagnosis.py"),
    "httpx": ("providers/openai/transport.py", "providers/openai/http_client.py"),
    "httpx_sse": ("providers/openai/transport.py",),
    "anyio": ("providers/openai/transport.py", "server/"),
    "llama_cpp": ("providers/llama/", "cli/diagnosis.py"),
    "msgpack": ("storage/packs.py", "providers/llama/"),
    "sqlite3": ("storage/sqlite.py",),
    "tomlkit": ("catalog/edit.py", "estimator/store.py"),
    "click": ("cli/",),
    "jinja2": ("providers/llama/chat_template.py",),
    "keyring": ("providers/openai/keys.py",),
    "gguf": ("estimator/convert/gguf.py",),
    "safetensors": ("estimator/convert/checkpoint.py",),
    "huggingface_hub": ("storage/hub.py",),
    "pyarrow": ("fingerprinting/importing/scope_dataset.py",),
    "scipy": ("training/",),
    "sklearn": ("evaluation/baselines.py",),
    "matplotlib": ("evaluation/plots/",),
    "starlette": ("server/",),
    "uvicorn": ("server/",),
    "prometheus_client": ("server/state.py",),
}
# Modules that open connections, or can.
NETWORK = (
    "aiohttp",
    "anyio",
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
# hub downloads, transport calls models' servers through the client of http_client, server_client talks to the user's own server on
# this machine and refuses every other address. The llama.cpp worker talks over pipes; server/ only listens.
REMOTE = ("storage/hub.py", "providers/openai/transport.py", "providers/openai/http_client.py", "cli/server_client.py")
# Training and conversion belong to build_scripts/: a user never installs these. Evaluation has its own extra.
BUILD_ONLY = ("build_scripts", "onnx", "pandas", "torch", "transformers")
PIPELINE_KNOWS = ("errors", "types")
# Settings stop here: every other part takes the values it uses.
KNOW_SETTINGS = (
    "settings/",
    "catalog/edit.py",
    "estimator/factory.py",
    "execution/request.py",
    "policy/overrides.py",
    "factory.py",
    "router.py",
    "evaluation/run.py",
    "server/",
    "cli/",
)
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
MAX_ROOT_FILES = 8
MAX_LINES = 500
MAX_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    """One imported module with its line. `lazy`: inside a function. `typing`: under TYPE_CHECKING. `names`: what is imported."""

    module: str
    line: int
    lazy: bool
    typing: bool
    names: tuple[str, ...] = ()


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    """The top folder of a file, or the file itself at the package root."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[Import]:
    """Every import of a file. `from a import b` counts as a.b when that is a module of the package, as a otherwise."""
    return list(_walk(ast.parse(path.read_text("utf-8")), path, lazy=False, typing=False))


def _walk(node: ast.AST, path: Path, *, lazy: bool, typing: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, lazy, typing) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, path)
        for module in {_module(base, alias.name) for alias in node.names}:
            yield Import(module, node.lineno, lazy, typing, tuple(alias.name for alias in node.names))
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
    """The file of one of the package's modules; None for a module of another package."""
    top, *rest = module.split(".")
    if top != "scope_edge":
        return None
    path = PACKAGE.joinpath(*rest)
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def allowed(file: str, places: tuple[str, ...]) -> bool:
    return any(file.startswith(place) if place.endswith("/") else file == place for place in places)


def test_the_package_has_files_and_their_imports_are_seen() -> None:
    seen = {name(path): {found.module for found in imports(path)} for path in sources()}
    assert "onnxruntime" in seen["encoding/session.py"], (
        "a lazy import is not seen: the other tests would prove nothing"
    )
    assert "scope_edge.types" in seen["pipeline.py"]


def test_every_room_is_on_the_plan() -> None:
    assert {room(path) for path in sources()} == set(ROOMS), (
        "add a new room to ROOMS at its height, and to README's tour"
    )


def test_the_root_holds_few_files() -> None:
    root = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(root) <= MAX_ROOT_FILES, f"a new file belongs into a room: {root}"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_no_room_imports_a_higher_one(path: Path) -> None:
    height = ROOMS.index(room(path))
    strays = [
        f"{name(path)}:{found.line} imports {found.module}"
        for found in imports(path)
        if (file := _file(found.module)) and ROOMS.index(room(file)) > height
    ]
    assert not strays, f"data flows one way; take what you need as an argument, or move it down: {strays}"


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
        assert path not in trail, f"import cycle {cycle}; move what both need into a room below"
        if path not in done:
            for other in graph[path]:
                if other is not None:
                    visit(other, (*trail, path))
            done.add(path)

    for path in sources():
        visit(path, ())


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_lives_in_one_room(library: str) -> None:
    places = LIBRARIES[library]
    strays = [
        f"{name(path)}:{found.line}"
        for path in sources()
        for found in imports(path)
        if found.module.split(".")[0] == library and not found.typing and not allowed(name(path), places)
    ]
    assert not strays, f"{library} belongs to {places[0]}, so that replacing it touches one room; call that: {strays}"


def test_only_these_files_open_a_connection() -> None:
    strays = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in sources()
        for found in imports(path)
        if found.module.split(".")[0] in NETWORK
        and not allowed(name(path), (*REMOTE, *LIBRARIES.get(found.module.split(".")[0], ())))
        and not found.module.startswith("urllib.parse")
    ]
    assert not strays, f"scope-edge works offline; only {', '.join(REMOTE)} may open a connection: {strays}"


def test_run_time_needs_nothing_from_the_build() -> None:
    strays = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in sources()
        for found in imports(path)
        if found.module.split(".")[0] in BUILD_ONLY
    ]
    assert not strays, f"these are installed only where assets are built; do it in build_scripts/: {strays}"


def test_the_pipeline_knows_only_types_errors_and_protocols() -> None:
    known = {f"scope_edge.{module}" for module in PIPELINE_KNOWS}
    strays = [
        f"line {found.line}: {found.module}"
        for found in imports(PACKAGE / "pipeline.py")
        if found.module.split(".")[0] not in sys.stdlib_module_names and found.module not in known and not found.typing
    ]
    assert not strays, f"pipeline.py runs the flow on protocols; give it the part through factory.py: {strays}"


def test_settings_stop_at_the_factory() -> None:
    strays = [
        f"{name(path)}:{found.line}"
        for path in sources()
        for found in imports(path)
        if found.module == "scope_edge.settings.config"
        and {"Settings", "load_settings"} & set(found.names)
        and not allowed(name(path), KNOW_SETTINGS)
    ]
    assert not strays, f"take the two or three values you use; factory.py reads them off the settings: {strays}"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_files_are_small_and_print_only_in_the_cli(path: Path) -> None:
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


def test_a_class_name_means_one_thing() -> None:
    found = Counter(
        node.name
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    twice = sorted(name for name, times in found.items() if times > 1)
    assert not twice, f"one name, one thing; give one of each a name of its own: {twice}"


def test_tests_stand_in_the_rooms_of_the_code() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py") if path.parent != TESTS}
    unknown = folders - set(ROOMS) - {"docs"}
    assert not unknown, f"a test stands in the room of what it tests: {sorted(unknown)}"


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
