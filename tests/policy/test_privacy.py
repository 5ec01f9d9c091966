"""What looks private keeps a query on the device, by the form of it alone, and the decision says so."""

from __future__ import annotations

import base64
import random
import string
import uuid
from pathlib import Path

import pytest

from scope_edge.factory import load_pipeline
from scope_edge.policy.privacy import PrivacyGuard, private_parts
from scope_edge.settings.config import load_settings
from scope_edge.types import Preference, Query

EMAIL, KEY = "an e-mail address", "what looks like a key"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to jane.doe+test@mail.example.org today", (EMAIL,)),
        ("OPENAI_API_KEY=sk-proj-AbCd1234efGH5678ijKL9012", (KEY,)),
        ("token ghp_16C7e42F292c6912E7710c838347Ae178B4a", (KEY,)),
        ("aws AKIAIOSFODNN7EXAMPLE", (KEY,)),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", (KEY,)),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", (KEY,)),
        ("password: 9f86d081884c7d659a2feaa0c55ad015", (KEY,)),
        ("a@b.de and hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ012345", (EMAIL, KEY)),
        ("q7Zt1VbK9xLm3RwPs8Yd2HcNf5Gj6Tea", (KEY,)),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", (KEY,)),
        ("call(Drmhze6EPcv0fN_81Bj-nAx2LsQ)", (KEY,)),
        ("my password is kX82-pq1Ze", (KEY,)),
        ('API_KEY = "0123456789abcdef0123456789abcdef"', (KEY,)),
        ("postgres://app:hunter22@localhost/x", (KEY,)),
        ("https://api.example.org/v1?k=q7Zt1VbK9xLm3RwPs8Yd%2B2HcNf5Gj6Tea", (KEY,)),
        ("Schreib an jürgen@bücher.example", (EMAIL,)),
        ("Write to a@xn--bcher-kva.example or b@post.xn--p1ai", (EMAIL,)),
        ("メールはalice@example.comです", (EMAIL,)),
        ("長" * 70 + "a@例え.テスト", (EMAIL,)),
        ("mailto:alice%40example.com", (EMAIL,)),
        ('{"to": "alice\\u0040example.com"}', (EMAIL,)),
        ("alice&#64;example.com", (EMAIL,)),
        ("root@[192.0.2.7]", (EMAIL,)),
    ],
)
def test_what_has_a_private_form_is_found(text: str, found: tuple[str, ...]) -> None:
    assert private_parts([text]) == found


@pytest.mark.parametrize(
    "text",
    [
        "How many primes are there below one hundred?",
        "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
        "self.assertEqual(test_case_with_a_long_name_2024, expected)",
        "https://example.org/some/long/path/with/many/words/index.html",
        "Ping me @home, 12 @ 3 and user@localhost",
        "1234567890123456789012345678901234567890",
        "-----------------------------------------",
        "3.14159265358979323846264338327950288419716939937510",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        "550e8400-e29b-41d4-a716-446655440000",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        '"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="',
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
        "token = get_token(request); secret: SecretStr = Field(default=None)",
        "locale.setlocale(locale.LC_ALL, 'sk_SK.ISO8859-2')",
        "getHTTPResponse2XXStatusCodeFromJSON5Body",
    ],
)
def test_what_people_write_is_not(text: str) -> None:
    assert private_parts([text]) == ()


def test_random_keys_are_found_and_hashes_are_not() -> None:
    """The figures of docs/ask.md, on a few draws; `build_scripts/measure_privacy.py` has them all."""
    draw, letters = random.Random(3), string.ascii_letters + string.digits
    for alphabet, size in (
        (letters, 32),
        (letters + "+/", 40),
        (letters + "-_", 43),
        (string.ascii_uppercase + "234567", 32),
    ):
        texts = [f"Call it with {''.join(draw.choices(alphabet, k=size))}, please." for _ in range(100)]
        assert sum(private_parts([text]) == (KEY,) for text in texts) >= 98, (alphabet, size)
    hashes = [f"Is {draw.randbytes(n).hex()} in the log?" for n in (16, 20, 32) for _ in range(100)]
    uuids = [f"Is {uuid.UUID(int=draw.getrandbits(128))} in the log?" for _ in range(100)]
    assert private_parts([*hashes, *uuids]) == ()
    assert private_parts([base64.encodebytes(draw.randbytes(4000)).decode()]) == (), "a picture"


# Each took minutes, or would take them, where an expression starts anew at every place and runs far.
@pytest.mark.parametrize(
    "piece",
    [
        "sk-a-",
        "eyJ-",
        "eyJ.",
        "a@",
        "a@b.",
        "@b.c",
        "-----BEGIN ",
        "token",
        "x://a:",
        "ab1",
        "x" * 61 + "\n",
        "&",
        "\\u",
    ],
)
def test_a_long_text_is_looked_through_at_once(piece: str) -> None:
    assert private_parts([piece * (400_000 // len(piece)) + " a@b.de"]) == (EMAIL,)


@pytest.mark.parametrize(
    "query",
    [
        Query("Mail a@b.de"),
        Query("Hello", system="You write for a@b.de"),
        Query("And now?", history=(("user", "I am a@b.de"), ("assistant", "Hello."))),
        Query("And now?", attached=("tool", "look up a@b.de")),
    ],
)
def test_all_that_would_be_sent_is_looked_at(query: Query) -> None:
    held, why = PrivacyGuard().check(query, Preference(alpha=1.0))
    assert held == Preference(alpha=1.0, local_only=True) and why == (
        "kept on the device: an e-mail address was found in it",
    )


def test_the_decision_stays_on_the_device_and_says_why_only_when_asked_to(own_folders: Path) -> None:
    query, dearest = Query("Write a polite answer to jane@example.org"), Preference(alpha=1.0)
    assert load_pipeline(load_settings()).route(query, dearest).where == "cloud", "off by default"
    flow = load_pipeline(load_settings({"privacy": "patterns"}))
    kept = flow.route(query, dearest)
    assert kept.where == "device" and kept.warnings[0].startswith("kept on the device: an e-mail address")
    assert all(one.excluded_by == "local_only" for one in kept.candidates if one.where == "cloud")
    assert "jane" not in str(kept.as_dict())
    other = flow.route(Query("What is 17 * 23?"), dearest)
    assert other.where == "cloud" and not [one for one in other.warnings if "kept" in one]
    ((_, many),) = flow.decide_many([(query, dearest)])
    assert many.where == "device"
