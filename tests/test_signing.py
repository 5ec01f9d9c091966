"""Signed packs, with real keys: what is signed arrives with its signer's name, what was altered or signed by others does not."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Cli, spawn, user
from test_importing import LLAMA, known
from test_share import cli, elsewhere

from scope_edge.importing.share import KIND
from scope_edge.packs import pack, read_pack, write_pack
from scope_edge.signing import signed

pytest.importorskip("cryptography")
__all__ = ["cli", "elsewhere"]


def new_key(cli: Cli, path: Path) -> str:
    done = cli("signer", "new", str(path))
    assert (done.code, done.err) == (0, "")
    return done.out.strip()


@pytest.fixture
def key(cli: Cli, tmp_path: Path) -> str:
    return new_key(cli, tmp_path / "key.pem")


@pytest.fixture
def sent(cli: Cli, tmp_path: Path, key: str, elsewhere: Any) -> Path:
    """A signed pack, in the hands of somebody who has nothing."""
    path = tmp_path / "it.pack"
    done = cli("export", LLAMA, "--anchors", "mine", "-o", str(path), "--sign-with", str(tmp_path / "key.pem"))
    assert (done.code, done.err) == (0, "") and key in done.out
    elsewhere()
    return path


def nothing_arrived(cli: Cli, code: int, complaint: str, *args: str) -> None:
    done = cli("import", *args)
    assert (done.code, done.out) == (code, "") and complaint in done.complaint
    assert not list(Path(os.environ["SCOPE_EDGE_DATA_DIR"]).glob("*/*.pack"))


def test_a_private_key_is_only_its_owners_and_is_printed_nowhere(cli: Cli, tmp_path: Path, key: str) -> None:
    path = tmp_path / "key.pem"
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = path.read_text("utf-8").splitlines()[1]
    assert cli("signer", "show", str(path)).out == key + "\n"
    done = cli("export", LLAMA, "--anchors", "mine", "-o", str(tmp_path / "it.pack"), "--sign-with", str(path))
    assert secret not in done.out
    assert base64.b64decode(secret)[-32:] not in (tmp_path / "it.pack").read_bytes()
    again = cli("signer", "new", str(path))
    assert again.code == 2 and "there is such a file already" in again.complaint
    assert secret in path.read_text("utf-8"), "a key in use must not be lost"


def test_a_signed_pack_arrives_as_sent_and_says_whose_it_is(cli: Cli, sent: Path, key: str) -> None:
    done = cli("import", str(sent))
    assert (done.code, done.err) == (0, "")
    assert f"of {key}, whom you have not trusted" in done.out
    assert len(known(LLAMA)) == 8
    stored = next((Path(os.environ["SCOPE_EDGE_DATA_DIR"]) / "fingerprints").glob("*.pack"))
    assert read_pack(stored, "fingerprints")["about"]["signer"] == key


def test_a_trusted_signer_is_called_by_name(cli: Cli, sent: Path, key: str) -> None:
    assert cli("signer", "trust", "maria", key).code == 0
    assert key in cli("signer", "list").out
    assert f"of maria, {key}" in cli("import", str(sent)).out


def test_an_unsigned_pack_says_so_and_is_refused_where_a_signature_is_asked_for(
    cli: Cli, tmp_path: Path, key: str, elsewhere: Any
) -> None:
    plain = tmp_path / "plain.pack"
    assert cli("export", LLAMA, "--anchors", "mine", "-o", str(plain)).code == 0
    elsewhere()
    nothing_arrived(cli, 5, "not signed", str(plain), "--require-signature-by", key)
    assert cli("signer", "trust", "maria", key).code == 0
    nothing_arrived(cli, 5, "not signed", str(plain))
    done = cli("import", str(plain), "--from-anyone")
    assert done.code == 0 and "not signed" in done.out
    assert cli("signer", "forget", "maria").code == 0
    assert "not signed" in cli("import", str(plain)).out


def test_a_pack_of_another_signer_is_refused(cli: Cli, tmp_path: Path, sent: Path, key: str) -> None:
    other = new_key(cli, tmp_path / "other.pem")
    nothing_arrived(
        cli, 5, f"signed by {key}, and a signature of {other} is asked for", str(sent), "--require-signature-by", other
    )
    assert cli("signer", "trust", "maria", other).code == 0
    nothing_arrived(cli, 5, f"signed by {key}", str(sent))
    nothing_arrived(cli, 5, f"signed by {key}", str(sent), "--require-signature-by", "maria")
    wanted = ("--require-signature-by", "maria", "--require-signature-by", key)
    assert cli("import", str(sent), *wanted).code == 0


def _other_outcomes(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """The pack inside with one outcome turned over, made anew so that its own hash is right."""
    write_pack(path, KIND, {})
    path.write_bytes(body["pack"])
    inner = read_pack(path, KIND)
    part = inner["sets"]["mine"]
    return {**body, "pack": pack(KIND, {**inner, "sets": {"mine": {**part, "correct": 1 - part["correct"]}}})}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_other_outcomes, "altered after it was signed"),
        (lambda body, _: {**body, "signature": body["signature"][:-1]}, "its signature has 63 bytes, not 64"),
        (lambda body, _: {**body, "signature": b""}, "its signature has 0 bytes, not 64"),
        (lambda body, _: {**body, "signature": bytes(64)}, "altered after it was signed"),
        (lambda body, _: {**body, "key": bytes(32)}, "altered after it was signed"),
        (lambda body, _: {**body, "key": body["key"][:-1]}, "its key has 31 bytes, not 32"),
        (lambda body, _: {**body, "key": "text"}, "without pack, key or signature"),
        (lambda body, _: {"pack": body["pack"]}, "without pack, key or signature"),
        (lambda body, _: {**body, "pack": b"junk"}, "altered after it was signed"),
    ],
)
def test_what_was_altered_is_refused_whoever_may_send(
    cli: Cli, tmp_path: Path, sent: Path, change: Any, complaint: str
) -> None:
    body = read_pack(sent, signed.KIND)
    write_pack(sent, signed.KIND, change(body, tmp_path / "inner.pack"))
    nothing_arrived(cli, 5, complaint, str(sent))
    nothing_arrived(cli, 5, complaint, str(sent), "--from-anyone")


def test_a_damaged_file_is_damage_before_it_is_a_signature(cli: Cli, sent: Path) -> None:
    blob = sent.read_bytes()
    sent.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    nothing_arrived(cli, 5, "damaged", str(sent))
    sent.write_bytes(blob[:-20])
    nothing_arrived(cli, 5, "get a fresh copy", str(sent))


def test_a_signature_for_something_else_does_not_fit(cli: Cli, tmp_path: Path, sent: Path) -> None:
    """The same key on the bare hash, as another program might have signed it."""
    from scope_edge.signing.ed25519 import sign

    body = read_pack(sent, signed.KIND)
    bare = signed.message(body["pack"])[-32:]
    _, signature = sign(bare, tmp_path / "key.pem")
    write_pack(sent, signed.KIND, {**body, "signature": signature})
    nothing_arrived(cli, 5, "altered after it was signed", str(sent))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "rsa", "open", "passphrase", "public"])
def test_files_that_are_no_private_key_are_one_line(cli: Cli, tmp_path: Path, key: str, kind: str) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    path, plain = tmp_path / "given.pem", s.NoEncryption()
    own = ed25519.Ed25519PrivateKey.generate()
    pem = {
        "empty": b"",
        "text": b"my secret words",
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, plain),
        "open": (tmp_path / "key.pem").read_bytes(),
        "passphrase": own.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x")),
        "public": own.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo),
    }
    if kind != "missing":
        path.write_bytes(pem[kind])
        path.chmod(0o644 if kind == "open" else 0o600)
    if kind == "open" and os.name == "nt":
        pytest.skip("modes mean nothing here")
    out = tmp_path / "it.pack"
    done = cli("export", LLAMA, "--anchors", "mine", "-o", str(out), "--sign-with", str(path))
    assert (done.code, done.out) == (2, "") and "given.pem" in done.complaint
    assert "secret" not in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("signer", "trust", "maria", "ed25519:AAAA"), "is no public key"),
        (("signer", "trust", "maria", "maria"), "is no public key"),
        (("signer", "trust", "two words", "{key}"), "is no name for a signer"),
        (("signer", "trust", "ben", "{other}"), "another key is trusted as 'ben'"),
        (("signer", "forget", "bern"), "did you mean ben?"),
        (("import", "mine", "--require-signature-by", "{key}"), "only packs are signed"),
        (("import", "{pack}", "--require-signature-by", "bne"), "did you mean ben?"),
        (("import", "{pack}", "--require-signature-by", "ben", "--from-anyone"), "contradict each other"),
    ],
)
def test_wishes_that_make_no_sense(cli: Cli, tmp_path: Path, key: str, args: tuple[str, ...], complaint: str) -> None:
    assert cli("signer", "trust", "ben", key).code == 0
    plain = tmp_path / "plain.pack"
    assert cli("export", LLAMA, "--anchors", "mine", "-o", str(plain)).code == 0
    other = new_key(cli, tmp_path / "other.pem")
    places = {"key": key, "other": other, "pack": str(plain)}
    filled = [str(tmp_path / "mine") if arg == "mine" else arg.format(**places) for arg in args]
    done = cli(*filled)
    assert done.code == 2 and complaint in done.complaint


def test_a_spoilt_list_of_signers_lets_nothing_in(cli: Cli, tmp_path: Path, sent: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "signers.txt").write_text("# mine\nmaria ed25519:short\n", "utf-8")
    done = cli("import", str(sent))
    assert done.code == 5 and "signers.txt, line 2" in done.complaint


def test_without_the_library_signing_and_signed_packs_name_the_extra(cli: Cli, tmp_path: Path, sent: Path) -> None:
    hidden = tmp_path / "hidden" / "cryptography"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not here')", "utf-8")
    env = {**user(tmp_path), "SCOPE_EDGE_DATA_DIR": os.environ["SCOPE_EDGE_DATA_DIR"]}
    env["PYTHONPATH"] = os.pathsep.join([str(hidden.parent), env["PYTHONPATH"]])
    for args in (["import", str(sent)], ["signer", "new", str(tmp_path / "k.pem")]):
        done = spawn(args, env)
        assert done.code == 2 and "scope-edge[sign]" in done.complaint
    assert spawn(["signer", "list"], env).code == 0


def test_openssl_and_this_agree_on_what_a_key_is(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pem"
    try:
        made = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=False)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    if made.returncode:
        pytest.skip("an openssl without ed25519")
    path.chmod(0o600)
    assert cli("signer", "show", str(path)).out.startswith("ed25519:")


def test_help_does_not_load_the_library() -> None:
    code = "import sys, scope_edge.cli.signer, scope_edge.importing.share; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
