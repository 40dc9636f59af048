import pytest
from options import ROOT

from gateway.config import parse
from gateway.reload import _FIXED, fixed_faults


def config(**sections):
    return parse(sections, "test")


def test_the_same_configuration_can_always_be_taken_up():
    assert fixed_faults(config(), config()) == ()


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"listen": {"port": 104}}, "listen.port"),
        ({"spool": {"folder": "/x"}}, "spool.folder"),
        ({"embedded": {"port": 9}}, "embedded.port"),
        ({"log": {"level": "debug"}}, "log.level"),
        ({"listen": {"tls": {"certificate": "c", "key": "k"}}}, "listen.tls"),
    ],
)
def test_what_needs_a_restart_is_named(sections, path):
    assert [fault.path for fault in fixed_faults(config(), config(**sections))] == [path]


def test_peers_archives_and_limits_need_none():
    far = {"archives": {"far": {"url": "http://x"}}, "ae_titles": {"GATEWAY": {}, "FAR": {"archive": "far"}}}
    wanted = config(**far, peers={"CT01": {}}, listen={"workers": 4, "idle_timeout": 5}, unknown_peers="accept")
    assert fixed_faults(config(), wanted) == ()
    assert [
        fault.path for fault in fixed_faults(config(**{**far, "ae_titles": {"FAR": {"archive": "far"}}}), config())
    ] == ["ae_titles"]


def test_operations_names_what_needs_a_restart():
    text = (ROOT / "docs" / "operations.md").read_text().partition("These need a restart")[2]
    for path in _FIXED:
        section, _, name = path.partition(".")
        assert path in text or (section in {"embedded", "log"} and (name in text or f"`{section}`" in text)), path
