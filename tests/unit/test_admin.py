import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from options import ROOT

from gateway.admin import password
from gateway.admin.advice import advice
from gateway.admin.chart import HEIGHT, MINUTES, WIDTH, chart
from gateway.admin.pages import ago, duration, size
from gateway.config import parse
from gateway.errors import ConfigError
from gateway.recent import Minute, Refusal

TITLES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=16
)


def refusal(calling="CT01", called="GATEWAY", address="10.0.0.21"):
    return Refusal(calling, called, address, "why", 1, 0.0, 0.0)


# -- what to write into config.yaml ----------------------------------------------------------------------------


@given(TITLES, st.sampled_from(["10.0.0.21", "::1", "fe80::1%eth0"]))
def test_the_line_for_a_stranger_lets_it_in_from_where_it_called(title, address):
    config = parse({}, "test")
    added = yaml.safe_load(advice(refusal(title, address=address), config))
    after = parse(added, "test")
    assert after.peers[title].addresses == [address]
    assert advice(refusal(title, address=address), after) == ""


@given(TITLES)
def test_the_line_for_an_unknown_called_title_makes_it_one_of_ours(title):
    config = parse({"archives": {"main": {"url": "http://x"}}, "ae_titles": {"OURS": {"archive": "main"}}}, "test")
    if title != "OURS":
        added = yaml.safe_load(advice(refusal(called=title), config))
        assert added == {"ae_titles": {title: {"archive": "main"}}}


def test_the_line_for_another_address_keeps_the_addresses_that_were_there():
    config = parse({"peers": {"CT01": {"addresses": ["10.0.0.1"]}}}, "test")
    assert yaml.safe_load(advice(refusal(), config)) == {"peers": {"CT01": {"addresses": ["10.0.0.1", "10.0.0.21"]}}}


def test_no_line_is_given_where_none_would_help():
    assert advice(refusal(), parse({"peers": {"CT01": {}}}, "test")) == ""
    assert advice(refusal(), parse({"unknown_peers": "accept"}, "test")) == ""


# -- the password ----------------------------------------------------------------------------------------------


def test_a_hash_fits_its_password_and_no_other_and_is_another_each_time():
    line = password.hashed("secret")
    assert password.is_hash(line)
    assert password.fits("secret", line)
    assert not password.fits("Secret", line)
    assert password.hashed("secret") != line


def test_the_command_makes_the_line_of_a_piped_password_and_refuses_none():
    command = [sys.executable, "-m", "gateway.cli", "admin-password"]
    made = subprocess.run(command, input="secret\n", cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert password.fits("secret", made.stdout)
    none = subprocess.run(command, input="\n", cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert none.returncode == 2
    assert none.stdout == ""


@pytest.mark.parametrize("line", ["", "secret", "scrypt:1:2", "scrypt:x:8:1:AA==:AA==", "scrypt:16384:8:1:%:AA=="])
def test_what_is_no_hash_is_known(line):
    assert not password.is_hash(line)


def test_a_password_or_none_is_told_apart_by_the_configuration():
    assert parse({"admin": None}, "test").admin is None
    with pytest.raises(ConfigError):
        parse({"admin": {"password": "secret"}}, "test")


# -- the drawing -----------------------------------------------------------------------------------------------


def test_the_chart_has_the_last_hour_from_left_to_right():
    minutes = [Minute(940, 9, 9, 9), Minute(941, 25, 0, 100), Minute(1000, 50, 40, 10)]
    drawn = chart(minutes, 1000)
    first, last = drawn.bars
    assert drawn.top == 50
    assert (drawn.received, drawn.archived, drawn.bytes) == (75, 40, 110)
    assert (first.x, first.received, first.archived) == (0, HEIGHT / 2, 0)
    assert (last.received, last.archived) == (HEIGHT, HEIGHT * 0.8)
    assert last.x == WIDTH - WIDTH / MINUTES
    assert last.x + 2 * last.width <= WIDTH
    assert first.label == "59 min ago: 25 received, 0 archived"


@given(st.lists(st.tuples(st.integers(0, 120), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=20))
def test_no_bar_leaves_the_chart(rows):
    drawn = chart([Minute(minute, received, archived, 0) for minute, received, archived in rows], 100)
    for bar in drawn.bars:
        assert 0 <= bar.x <= WIDTH
        assert 0 <= bar.received <= HEIGHT
        assert 0 <= bar.archived <= HEIGHT


def test_an_empty_hour_can_be_drawn():
    assert chart([], 1000).bars == ()


def test_numbers_are_said_in_their_largest_unit():
    assert [size(number) for number in (0, 999, 1000, 123_456, 2.5e9, 5e12, 5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "2.5 GB",
        "5.0 TB",
        "5000.0 TB",
    ]
    assert [duration(seconds) for seconds in (0, 59, 60, 3600, 200_000)] == ["0 s", "59 s", "1 min", "1 h", "2 d"]
    assert ago(0.0, 100.0) == "never"
    assert ago(90.0, 100.0) == "10 s ago"


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ({}, "http://127.0.0.1:8080/"),
        ({"host": "::1"}, "http://[::1]:8080/"),
        ({"host": "localhost"}, "http://localhost:8080/"),
        ({"host": "0.0.0.0", "tls": {"certificate": "a", "key": "b", "ca": "c"}}, "https://127.0.0.1:8080/"),
    ],
)
def test_the_greeting_leads_to_the_page(section, url):
    assert parse({"admin": section}, "test").admin.url(8080) == url
