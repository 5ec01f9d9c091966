"""`scope-edge log` and `scope-edge feedback`: what was decided is listed, explained, judged and purged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_cases import QUERY, Cli, user, without_timings
from journal_cases import decided, recorded, run_of
from repository import DOCS

from scope_edge.estimation.feedback_store import load_feedback
from scope_edge.factory import open_journal, open_ledger
from scope_edge.settings.config import Settings

ALL = 'journal = "all"\n'
# The pool of the decisions that tests share.
POOL = ("--pool", "open-2024")


def documented(heading: str) -> list[str]:
    """The keys of one table of docs/json.md, in order."""
    section = re.split(rf"^#+ {heading}$", (DOCS / "json.md").read_text("utf-8"), flags=re.MULTILINE)[1]
    cells = re.findall(r"^\| (`[^|]+`) \|", re.split(r"^#", section, flags=re.MULTILINE)[0], re.MULTILINE)
    return [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]


def test_routing_is_written_down_only_when_asked_and_says_the_same(cli: Cli) -> None:
    plain = cli("route", QUERY, "--json")
    assert cli("log", "--json").json == []
    noted = cli("route", QUERY, "--json", settings=ALL)
    assert noted.err == "" and without_timings(noted.json) == without_timings(plain.json)
    (entry,) = cli("log", "--json").json
    assert (entry["state"], entry["model"], entry["run"]) == ("routed", plain.json["choice"], None)


def test_every_line_of_a_stream_is_written_down_under_its_own_query(cli: Cli) -> None:
    lines = '{"text": "Why is the sky blue?"}\nnot json\n{"text": "What is 17 * 23?", "alpha": 0.9}\n'
    assert cli("route", "--jsonl", "-", input=lines, settings=ALL).code == 4
    last, first = cli("log", "--json").json
    assert (first["decision"]["alpha"], last["decision"]["alpha"]) == (0.5, 0.9)
    assert [one["id"] for one in cli("log", "--json", "--text", "What is 17 * 23?").json] == [last["id"]]
    assert [one["id"] for one in cli("log", "--json", "--text", "-", input="Why is the sky blue?\n").json] == [
        first["id"]
    ]


def test_the_list_shows_what_became_of_decisions_and_its_filters_hold(cli: Cli) -> None:
    journal = open_journal(Settings())
    first = recorded(journal)
    second = recorded(journal, model="gemma-2-2b-it", where="device", usd=0.0, ending="cut", attempts=())
    shown = cli("log").out.splitlines()
    assert len(shown) == 3 and shown[1].startswith(second) and shown[2].startswith(first)
    assert re.search(r"gemma-2-2b-it +cut +[\d.]+ +120 +free +2\.3$", shown[1])
    assert "complete after 1 other" in shown[2] and "$0.000061" in shown[2]
    for arguments, wanted in (
        (("--limit", "1"), [second]),
        (("--before", second), [first]),
        (("--before", "last"), [first]),
        (("--model", "gemma-2-2b-it"), [second]),
        (("--since", "1h"), [second, first]),
        (("--since", "2999-01-01"), []),
    ):
        assert [one["id"] for one in cli("log", "--json", *arguments).json] == wanted, arguments
    assert cli("log", "--model", "nobody").out == "no entries of that kind\n"


def test_the_json_has_the_documented_keys_in_the_documented_order(cli: Cli) -> None:
    journal = open_journal(Settings())
    id = recorded(journal)
    body = cli("log", "--why", id, "--json").json
    assert body == cli("log", "--json").json[0]
    assert list(body) == documented("scope-edge log")
    assert list(body["run"]) == documented("run")
    assert list(body["run"]["attempts"][0]) == documented("attempts")
    assert ["id", *body["decision"]] == documented("A decision")
    assert list(cli("feedback", id, "--correct", "--text", QUERY, "--json").json) == documented("scope-edge feedback")
    assert list(cli("log", "--why", id, "--json").json["feedback"]) == ["correct", "tokens"]
    spend = cli("log", "spend", "--json").json
    assert list(spend) == ["day", "month"] and list(spend["day"]) == documented("scope-edge log spend")
    assert list(cli("log", "purge", "--yes", "--json").json) == documented("scope-edge log purge")


def test_why_explains_a_decision_and_what_became_of_it(cli: Cli) -> None:
    journal = open_journal(Settings(journal_text=True, journal_embedding=True, profile="work"))
    recorded(journal)
    id = recorded(journal)
    routed = cli("route", "--explain", *POOL, QUERY).out
    why = cli("log", "--why", id).out
    assert f"{id}, decided " in why and "in pool default, profile work" in why and QUERY in why
    assert "the same query was decided 1 other time: " in why
    table = routed[routed.index("nearest anchors") :].partition("\n\n")[0]
    assert table in why, "the nearest anchors, as `route --explain` shows them"
    assert routed.splitlines()[0] in why
    lambdas = [float(re.search(r"lambda is ([\d.]+) per dollar", text)[1]) for text in (routed, why)]  # type: ignore[index]
    assert lambdas[1] == pytest.approx(lambdas[0], rel=0.02)
    assert "llama-3.1-405b-instruct, in the cloud, did not answer: 503 from the server" in why
    assert f"{decided()[1].choice}, in the cloud, answered" in why
    assert "prompt 31 and answer 120 tokens (as the server counted), $0.000061, first token after 0.41 s" in why


def test_why_tells_what_was_not_kept_and_what_did_not_happen(cli: Cli) -> None:
    encoded, decision = decided()
    journal = open_journal(Settings())
    journal.record(encoded.query, decision, None, encoded=encoded)
    why = cli("log", "--why", "last").out
    assert "the query's text was not kept" in why and "only decided, not run" in why
    assert re.search(r"nearest anchors\n  similarity  category +source\n", why) and QUERY not in why
    nobody = run_of(decision, model=None, where=None, ending="failed", completion_tokens=None, usd=None)
    journal.record(encoded.query, decision, nobody, encoded=None)
    why = cli("log", "--why", "last").out
    assert "no model answered" in why and "answer ? tokens" in why and "at an unknown cost" in why


def test_feedback_is_given_shown_and_taken_back(cli: Cli) -> None:
    id = recorded(open_journal(Settings()))  # the default settings are enough
    before = without_timings(cli("route", QUERY, "--json", *POOL).json)
    given = cli("feedback", "last", "--wrong")
    assert given.code == 0 and given.out == (
        f"{id}: {decided()[1].choice} was wrong; 1 answer judged, used from the next query on\n"
    )
    assert cli("log").out.splitlines()[1].endswith("wrong")
    assert f"your feedback: wrong; `scope-edge feedback {id} --undo` takes it back" in cli("log", "--why", id).out
    assert "feedback" in cli("anchors", "list").out
    assert without_timings(cli("route", QUERY, "--json", *POOL).json) != before
    assert "(different from before)" in cli("feedback", id, "--correct", "--tokens", "90").out
    assert cli("feedback", id, "--undo").out.startswith(f"{id}: your feedback on ")
    assert without_timings(cli("route", QUERY, "--json", *POOL).json) == before


def test_feedback_on_a_model_that_nothing_is_known_of_says_so(cli: Cli) -> None:
    recorded(open_journal(Settings(journal_embedding=True)), model="brand-new", where="device")
    ended = cli("feedback", "last", "--correct")
    assert ended.code == 0 and "brand-new was right" in ended.out
    assert ended.complaint.startswith("brand-new has no fingerprint") and "scope-edge fingerprint" in ended.complaint


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("log", "--why", "zzzzzz"), 2, "no entry 'zzzzzz' in the journal; `scope-edge log` shows them"),
        (("log", "--why", "last"), 2, "no entry 'last' in the journal; `scope-edge log` shows them"),
        (("log", "--why", "last", "--limit", "3"), 2, "--why explains one entry; leave --limit out"),
        (("log", "--limit", "3", "spend"), 2, "options go after `log spend`, not before spend"),
        (("log", "--since", "yesterday"), 2, "--since must be a date as in 2026-01-31, or an age as in 12h, 30d or 8w"),
        (("log", "--since", "999999w"), 2, "--since must be a date"),
        (
            ("log", "purge"),
            2,
            "Delete all entries of the journal and the anchors made of your feedback on them? Without a terminal",
        ),
        (("log", "purge", "--older-than", "30d"), 2, "Delete entries older than 20"),
        (("feedback", "last"), 2, "give one of --correct, --wrong and --undo"),
        (("feedback", "last", "--wrong"), 2, "no entry 'last' in the journal"),
        (("feedback", "last", "--undo", "--tokens", "3"), 2, "--undo takes feedback back; leave --tokens"),
        (("feedback",), 2, "Missing argument 'ID'; see `scope-edge feedback --help`"),
    ],
)
def test_what_makes_no_sense_is_one_line(cli: Cli, arguments: tuple[str, ...], code: int, complaint: str) -> None:
    ended = cli(*arguments)
    assert (ended.code, ended.out) == (code, "") and ended.complaint.startswith(complaint)
    assert not (cli.folder / "data").exists(), "asking makes no file"


def test_purging_says_what_went(cli: Cli) -> None:
    journal = open_journal(Settings(journal_embedding=True))
    for _ in range(3):
        id = recorded(journal)
    cli("feedback", id, "--wrong")
    assert cli("log", "purge", "--older-than", "1d", "--yes").out == "0 entries deleted\n"
    assert cli("log", "purge", "--yes").out == "3 entries deleted\n1 anchor made of your feedback deleted\n"
    assert cli("log").out == "no entries; `scope-edge ask` and `scope-edge serve` write them\n"
    assert load_feedback().said == ()


def test_a_damaged_journal_is_one_line_and_routing_goes_on(cli: Cli) -> None:
    plain = cli("route", QUERY, "--json")
    recorded(open_journal(Settings()))
    file = Path(user(cli.folder)["SCOPE_EDGE_DATA_DIR"]) / "journal" / "journal.sqlite"
    for beside in file.parent.glob("*.sqlite*"):
        beside.write_bytes(b"noise" * 3000)
    routed = cli("route", QUERY, "--json", settings=ALL)
    assert routed.code == 0 and without_timings(routed.json) == without_timings(plain.json)
    assert routed.complaint.startswith(f"the journal is not written: {file}: damaged (")
    for arguments in (("log",), ("log", "--why", "last"), ("feedback", "last", "--wrong")):
        ended = cli(*arguments)
        assert ended.code == 5 and ended.complaint.endswith("; `scope-edge log purge` begins it anew")
    assert cli("log", "purge", "--yes").out == f"{file}: damaged; overwritten and deleted\n"
    assert cli("route", QUERY, "--json").err == "" and len(cli("log", "--json").json) == 1


def test_spending_is_shown_beside_its_caps(cli: Cli) -> None:
    assert "spending has no cap" in cli("log", "spend").out
    with open_ledger(Settings()) as ledger:
        ledger.settle(ledger.reserve(0.25, "dear"), 0.2)
        ledger.settle(ledger.reserve(0.01, "cheap"), 0.01)
        ledger.settle(ledger.reserve(None, "stranger"), None)
        ledger.reserve(0.05, "dear")
    shown = cli("log", "spend", settings="max_usd_day = 0.30\n").out
    today = next(line for line in shown.splitlines() if line.startswith("today"))
    assert re.search(r"\$0\.21 +3 +\$0\.05 +\$0\.3 +\$0\.04 ", today)
    assert "this month by model: dear $0.2, cheap $0.01, stranger $0" in shown
    assert "1 call of models whose price is unknown, which no sum includes" in shown
    assert cli("log", "purge", "--yes").code == 0
    assert cli("log", "spend", "--json").json["month"]["spent"] == 0.21, "purging forgets no spending"


def test_terminals_are_not_steered_by_what_was_written_down(cli: Cli) -> None:
    recorded(open_journal(Settings(journal_text=True)), model="evil\x1b[2Jmodel", where="cloud")
    for arguments in (("log",), ("log", "--why", "last")):
        assert "evil\\x1b[2Jmodel" in cli(*arguments).out


def test_feedback_takes_one_verdict(cli: Cli) -> None:
    for verdicts in ((), ("--wrong", "--correct"), ("--correct", "--undo")):
        run = cli("feedback", "last", *verdicts)
        assert run.code == 2 and "give one of --correct, --wrong and --undo" in run.complaint, verdicts
