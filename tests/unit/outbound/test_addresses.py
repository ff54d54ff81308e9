"""Which addresses and URLs are refused, in all the forms that they can be written in."""

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import pytest

from image_service.errors import UrlNotAllowed
from image_service.outbound.addresses import AddressPolicy, Reach
from image_service.outbound.urls import MAX_LENGTH, parse

PUBLIC_ONLY: Final = AddressPolicy()
PRIVATE: Final = AddressPolicy([ip_network("10.1.0.0/16"), ip_network("127.0.0.0/8"), ip_network("fd00::/8")])


def lines(name: str) -> list[str]:
    """Return the entries of a file beside this one."""
    text = Path(__file__).with_name(name).read_text()
    return [json.loads(f'"{line}"') for line in text.splitlines() if line != "" and not line.startswith("# ")]


REFUSED_ADDRESSES: Final = lines("refused_addresses.txt")
PUBLIC_ADDRESSES: Final = lines("public_addresses.txt")
FORMS: Final = (
    *(f"https://[{each}]/" if ":" in each else f"https://{each}/" for each in REFUSED_ADDRESSES),
    *lines("refused_urls.txt"),
    "",
    "https://hooks.example.org/" + "x" * MAX_LENGTH,
    "https://" + "x" * 64 + ".example.org/",
    "https://" + "xx." * 84 + "org/",
)
"""Every form that is tried."""


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert PUBLIC_ONLY.reach(ip_address(address)) is Reach.REFUSED


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_public_addresses_up_to_the_edges_of_what_is_refused(address: str) -> None:
    assert PUBLIC_ONLY.reach(ip_address(address)) is Reach.PUBLIC
    assert PRIVATE.reach(ip_address(address)) is Reach.PUBLIC


def test_only_the_networks_that_are_allowed_are_so_in_addition() -> None:
    expected = {
        "10.1.2.3": Reach.ALLOWED,
        "127.0.0.1": Reach.ALLOWED,
        "fd00::1": Reach.ALLOWED,
        "10.2.0.1": Reach.REFUSED,
        "::1": Reach.REFUSED,
        "::ffff:10.1.2.3": Reach.REFUSED,
        "64:ff9b::10.1.2.3": Reach.REFUSED,
        "fd00::1%eth0": Reach.REFUSED,
        "169.254.169.254": Reach.REFUSED,
    }
    assert {each: PRIVATE.reach(ip_address(each)) for each in expected} == expected


@pytest.mark.parametrize("url", FORMS)
def test_urls_are_refused_without_a_look_up(url: str) -> None:
    with pytest.raises(UrlNotAllowed, match=r"\. (Send|Check|Percent-encode) "):
        parse(url, PUBLIC_ONLY)


def test_the_forms_are_different_ones() -> None:
    assert len(set(FORMS)) == len(FORMS)


@pytest.mark.parametrize(
    ("url", "host", "host_header", "path"),
    [
        ("https://hooks.example.org", "hooks.example.org", "hooks.example.org", "/"),
        ("https://hooks.example.org?a=1", "hooks.example.org", "hooks.example.org", "/?a=1"),
        ("https://hooks.example.org:443/x", "hooks.example.org", "hooks.example.org", "/x"),
        (
            "HTTPS://Hooks.Example.ORG/Aa%20%C3%A9",
            "hooks.example.org",
            "hooks.example.org",
            "/Aa%20%C3%A9",
        ),
        ("https://a_b-c.example.org/x/?y=/?:@", "a_b-c.example.org", "a_b-c.example.org", "/x/?y=/?:@"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "xn--bcher-kva.example", "/"),
        ("https://1.example.org/", "1.example.org", "1.example.org", "/"),
        ("https://0x7f.0x.org/", "0x7f.0x.org", "0x7f.0x.org", "/"),
        ("https://8.8.8.8/", "8.8.8.8", "8.8.8.8", "/"),
        ("https://[2606:4700:0:0::1111]/", "2606:4700::1111", "[2606:4700::1111]", "/"),
        ("https://hooks.example.org/" + "x" * (MAX_LENGTH - 26), "hooks.example.org", "hooks.example.org", None),
    ],
)
def test_public_urls(url: str, host: str, host_header: str, path: str | None) -> None:
    target = parse(url, PUBLIC_ONLY)
    assert (target.scheme, target.host, target.port, target.host_header) == ("https", host, 443, host_header)
    assert path is None or target.path == path
    assert target.needs is Reach.PUBLIC


@pytest.mark.parametrize(
    ("url", "host_header"),
    [
        ("http://10.1.2.3/", "10.1.2.3"),
        ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
        ("https://10.1.2.3:8443/", "10.1.2.3:8443"),
        ("http://[fd00::1]:9000/", "[fd00::1]:9000"),
        ("http://receiver:8080/", "receiver:8080"),
        ("http://receiver/", "receiver"),
        ("https://receiver/", "receiver"),
        ("http://receiver:443/", "receiver:443"),
        ("https://hooks.example.org:8443/", "hooks.example.org:8443"),
        ("http://hooks.example.org/", "hooks.example.org"),
    ],
)
def test_where_networks_are_allowed_names_must_lead_there_and_addresses_be_there(url: str, host_header: str) -> None:
    target = parse(url, PRIVATE)
    assert target.needs is Reach.ALLOWED
    assert target.host_header == host_header


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/",
        "https://8.8.8.8:8443/",
        "http://10.2.0.1/",
        "https://10.2.0.1/",
        "https://[::1]/",
        "http://127.1/",
    ],
)
def test_other_addresses_stay_refused_where_networks_are_allowed(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        parse(url, PRIVATE)
