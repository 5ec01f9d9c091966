"""What looks private keeps a query on the device, by the form of it alone, and the decision says so."""

from __future__ import annotations

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
    ],
)
def test_what_people_write_is_not(text: str) -> None:
    assert private_parts([text]) == ()


def test_a_long_text_is_looked_through_at_once() -> None:
    assert private_parts(["ab1" * 2_000_000, "a@" * 1_000_000, "x" * 5_000_000 + " a@b.de"]) == (EMAIL,)


@pytest.mark.parametrize(
    "query",
    [
        Query("Mail a@b.de"),
        Query("Hello", system="You write for a@b.de"),
        Query("And now?", history=(("user", "I am a@b.de"), ("assistant", "Hello."))),
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
