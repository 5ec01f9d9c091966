"""Proxies and certificates come from the environment: what is wrong with them is said in one line, and costs one model only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from chat_server import Said, serving

from scope_edge.catalog.endpoint import parse_endpoint
from scope_edge.errors import ProviderError, RemoteError
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.types import ModelCard

pytest.importorskip("httpx_sse")
from scope_edge.providers.openai.http_client import _proxy

MESSAGES = [{"role": "user", "content": "Hello?"}]
FAR = "https://192.0.2.1/v1"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        for spelling in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(spelling, raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)


def failure(address: str = FAR) -> ProviderError:
    card = ModelCard("far", "cloud", endpoint=address)
    with ChatClient(card, RetryPolicy(60, 1)) as client, pytest.raises(ProviderError) as error:
        list(client.stream(MESSAGES, {}, None))
    assert error.value.unbilled and "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE cannot be used (No such file"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE cannot be used ("),
        ("SSL_CERT_FILE", str(Path(__file__).parent), "SSL_CERT_FILE cannot be used ("),
        ("SSL_CERT_DIR", "/nowhere", "SSL_CERT_DIR cannot be used (no such folder)"),
        ("SSLKEYLOGFILE", "/nowhere/keys", "SSLKEYLOGFILE cannot be used (No such file"),
        ("HTTPS_PROXY", "ftp://u:hidden@192.0.2.2", "HTTPS_PROXY is not the address of a proxy"),
        ("https_proxy", "http://[::1", "https_proxy is not the address of a proxy"),
        ("ALL_PROXY", "http://u:hidden@host:port", "ALL_PROXY is not the address of a proxy"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    error = failure()
    assert said in str(error) and str(error).endswith("correct or unset it") and error.every_question
    assert "hidden" not in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="its words for a missing file are others")
def test_a_list_of_models_names_the_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    card = ModelCard("far", "cloud", endpoint=FAR)
    with ChatClient(card, RetryPolicy(60, 1)) as client, pytest.raises(RemoteError, match="SSL_CERT_FILE cannot be"):
        client.served()


def test_a_socks_proxy_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert 'ALL_PROXY names a SOCKS proxy, which needs socksio; pip install "scope-edge[cloud]"' in str(failure())


def test_a_socks_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socksio")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert "no connection" in str(failure())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HTTP_PROXY", "ftp://nonsense"),
        ("http_proxy", "http://192.0.2.1:3128"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("SSLKEYLOGFILE", "/nowhere/keys"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_model_on_this_machine_needs_neither(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, host: str
) -> None:
    monkeypatch.setenv(variable, value)
    with serving(lambda *_: Said("fine", 1, 1)) as server:
        card = ModelCard("near", "device", endpoint=server.address.replace("127.0.0.1", host))
        with ChatClient(card, RetryPolicy(60, 1)) as client:
            assert "".join(piece.text for piece in client.stream(MESSAGES, {}, None)) == "fine"


@pytest.mark.parametrize(
    ("address", "listed", "proxied"),
    [
        ("https://api.vendor.test/v1", "", True),
        ("https://api.vendor.test/v1", "vendor.test", False),
        ("https://api.vendor.test/v1", ".vendor.test,other", False),
        ("https://api.vendor.test/v1", "pi.vendor.test", True),
        ("https://api.vendor.test/v1", "*", False),
        ("https://api.vendor.test/v1", "other, *", False),
        ("https://api.vendor.test:8443/v1", "api.vendor.test:8443", False),
        ("https://[2001:db8::1]/v1", "[2001:db8::1]", False),
        ("https://[2001:db8::1]/v1", "2001:db8::1", False),
        ("https://[2001:db8::1]/v1", "::1,[::1],::1/128,fe80::/10", True),
        ("https://[2001:db8::1]/v1", "2001:DB8::/32", False),
        ("https://10.1.2.3/v1", "10.0.0.0/8", False),
        ("https://10.1.2.3/v1", "http://[::1", True),
        ("https://api.vendor.test/v1", "[::1],::1/128,%,a b", True),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_servers_without_a_proxy_may_be_written_as_other_programs_take_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str, listed: str, proxied: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    monkeypatch.setenv(variable, listed)
    assert _proxy(parse_endpoint(address)) == (("http://proxy.test:3128", "HTTPS_PROXY") if proxied else (None, ""))
