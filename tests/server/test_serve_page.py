"""The page in a real browser: opened by the printed link, used by keyboard, in light and dark, loading nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import chromium
import pytest
from chat_server import Said, serving
from cli_cases import QUERY
from serve_cases import LARGE, SMALL, Served, served, settings

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)
if chromium.found() is None:
    pytest.skip("there is no chromium here", allow_module_level=True)

ROWS = "[...document.querySelectorAll('#rows li')].map(row => row.dataset.model)"
CHOSEN = "(document.querySelector('#rows li.chosen') || {dataset: {}}).dataset.model"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        serving(lambda *_: Said("An answer.", 12, 9)) as model,
        served(tmp_path_factory.mktemp("home"), settings=settings(model, model)) as made,
    ):
        yield made


def test_a_query_is_placed_as_it_is_typed_and_alpha_reorders(server: Served, tmp_path: Path) -> None:
    server.ask(model="auto:best")
    with chromium.browser(tmp_path) as page:
        page.look(dark=False)
        page.open(server.page)
        page.until("document.activeElement.id === 'query'")
        assert page.value("location.hash") == "" and server.token not in page.value(
            "document.documentElement.outerHTML"
        )
        page.type(QUERY)
        page.until(f"{ROWS}.length === 2")
        # On to the knob, by keyboard alone.
        page.press("Tab")
        assert page.value("document.activeElement.id") == "alpha"
        page.press("End")
        page.until(f"document.getElementById('value').textContent === '1.00' && {CHOSEN} === '{LARGE}'")
        assert page.value(ROWS) == [LARGE, SMALL]
        page.press("Home")
        page.until(f"{CHOSEN} === '{SMALL}'")
        assert page.value(ROWS) == [SMALL, LARGE] and SMALL in page.value("document.getElementById('said').textContent")
        page.press("End")
        page.until(f"{CHOSEN} === '{LARGE}'")
        page.press("Tab")
        page.press(" ")
        page.until(f"{CHOSEN} === '{SMALL}'")
        assert page.value("document.querySelector('#rows li.out').dataset.model") == LARGE, "only on this device"
        assert page.value("document.querySelectorAll('#plot circle').length") == 2
        page.until("document.querySelectorAll('#recent tbody tr').length >= 1")
        assert LARGE in page.value("document.querySelector('#recent tbody').textContent")
        for dark in (False, True):
            page.look(dark=dark)
            ink, back = (page.value(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
            assert contrast(ink, back) > 7, (ink, back)
            page.picture(tmp_path / f"{'dark' if dark else 'light'}.png")
            assert (tmp_path / f"{'dark' if dark else 'light'}.png").stat().st_size > 10_000
        page.look(dark=False, width=360)
        assert page.value("document.documentElement.scrollWidth") <= 360, "it fits a narrow window"
        assert page.messages == [], "no error, and nothing that the policy had to refuse"
        assert {urlsplit(url).netloc for url in page.requests} == {f"127.0.0.1:{server.port}"}
        assert not [url for url in page.requests if server.token in url], "the token is in no address"


def test_it_shows_who_would_be_asked_and_what_goes_wrong_in_words(tmp_path: Path) -> None:
    long = "a-model-whose-name-somebody-made-of-the-name-of-a-file-with-everything-in-it-that-one-could-want-to-know"
    with serving(lambda *_: Said("An answer.", 12, 9)) as model:
        cards = "\n".join(f'[models."{name}"]\nendpoint = "{model.address}"\nwhere = "cloud"' for name in (SMALL, long))
        pools = f'[pools]\ndefault = ["{SMALL}", "{LARGE}", "{long}"]'
        with served(tmp_path, settings=f"{cards}\n{pools}") as server, chromium.browser(tmp_path) as page:
            server.ask(model=long)
            page.look(dark=False)
            page.open(server.page)
            page.until("document.querySelectorAll('#recent tbody tr').length === 1")
            assert page.value(
                "document.querySelector('#recent').scrollWidth <= document.querySelector('.wide').clientWidth"
            )
            page.type(QUERY)
            page.press("Tab")
            page.press("End")
            page.until(f"document.getElementById('value').textContent === '1.00' && {CHOSEN} === '{SMALL}'")
            assert page.value("document.querySelector('#rows li.out').dataset.model") == LARGE, (
                "nobody said how it is called"
            )
            assert page.value("document.querySelector('#rows li.out .tag').textContent") == "no address"
            assert server.end() == 0
            page.press("Home")
            page.until("document.getElementById('said').textContent.startsWith('The server does not answer')")


def test_without_the_link_it_asks_for_the_token_once(server: Served, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{server.port}/"
    with chromium.browser(tmp_path) as page:
        page.open(address)
        page.until("!document.getElementById('door').hidden")
        page.type("wrong")
        page.press("Enter")
        page.until("document.getElementById('why').textContent.startsWith('That was not')")
        page.value("document.getElementById('token').focus()")
        page.type(server.token)
        page.press("Enter")
        page.until("!document.getElementById('room').hidden")
        page.until("document.querySelector('#token').value === ''")
        page.open(address + "?again")
        page.until("!document.getElementById('room').hidden")
        assert page.value("document.getElementById('door').hidden")


def contrast(one: str, other: str) -> float:
    """By WCAG."""
    lights = sorted(luminance([int(part) for part in text[4:-1].split(",")]) for text in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color: list[int]) -> float:
    parts = [part / 255 for part in color]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
