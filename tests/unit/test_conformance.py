import html.parser
import subprocess
import sys

import pytest
from options import ROOT

from gateway.config import Config, parse
from gateway.conformance import Heading, Table, markdown, page, statement
from gateway.dimse.negotiation import FIND_MODELS, GET_MODELS, MOVE_MODELS, STANDARD_STORAGE, accept
from gateway.dimse.pdu import ACCEPTED, APPLICATION_CONTEXT, AssociateRequest, ProposedContext, UserInformation
from gateway.status import TABLE

CONFIG = parse(
    {
        "ae_titles": {"GATEWAY": {}, "FAST": {"acknowledge": "spooled"}},
        "peers": {"CT01": {"allow": ["echo", "store"]}, "VIEWER": {"host": "10.0.0.7", "port": 11113}},
        "listen": {"max_pdu": 65_536, "tls": {"certificate": "c", "key": "k", "ca": "a"}, "tls_port": 2762},
        "archives": {"main": {"url": "https://example.org/v2", "profile": "azure"}},
    },
    "test",
)


def test_the_statement_in_the_documents_is_that_of_the_default_configuration():
    command = [sys.executable, "-m", "gateway.cli", "conformance", "--config", str(ROOT / "config.yaml")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, cwd=ROOT)
    assert done.stdout.decode() == (ROOT / "docs" / "conformance.md").read_text()


def test_the_statement_says_what_is_configured():
    text = markdown(list(statement(CONFIG)))
    for said in (
        "`FAST`",
        "65536",
        "| `CT01` | echo, store |",
        "| `VIEWER` | 10.0.0.7 | 11113 |",
        "`azure`",
        "port 2762",
    ):
        assert said in text
    assert "Certificates of callers: asked for." in text
    assert "c | k" not in text


def test_every_sop_class_of_the_statement_is_accepted_and_no_other_standard_one():
    text = markdown(list(statement(Config())))
    stated = {uid for uid in (*STANDARD_STORAGE, *FIND_MODELS, *MOVE_MODELS, *GET_MODELS) if f"`{uid}`" in text}
    user = UserInformation(16_384, "1.2.3", "X")
    for uid in stated:
        contexts = (ProposedContext(1, uid, ("1.2.840.10008.1.2",)),)
        request = AssociateRequest("GATEWAY", "X", 1, APPLICATION_CONTEXT, contexts, user)
        assert accept(request, Config()).results[0].result == ACCEPTED
    assert stated == {*STANDARD_STORAGE, *FIND_MODELS, *MOVE_MODELS, *GET_MODELS}


def test_every_status_of_the_table_is_stated():
    text = markdown(list(statement(Config())))
    for codes in TABLE.values():
        for code in codes.values():
            assert f"`{code:04X}`" in text


def test_sections_are_numbered_in_order():
    numbers = [tuple(map(int, block.number.split("."))) for block in statement(CONFIG) if isinstance(block, Heading)]
    assert numbers == sorted(set(numbers))
    assert [number[0] for number in numbers if len(number) == 1] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("config", [Config(), CONFIG])
def test_tables_are_whole(config):
    for block in statement(config):
        if isinstance(block, Table):
            assert block.rows
            assert {len(row) for row in block.rows} == {len(block.header)}


def test_the_page_is_well_formed_and_says_the_same():
    class Reader(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.words = [], []

        def handle_starttag(self, tag, _):
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.words += data.split()

    reader = Reader()
    reader.feed(page(list(statement(CONFIG))))
    assert reader.open == []
    for word in ("VIEWER", "65536", "2762"):
        assert word in " ".join(reader.words)
