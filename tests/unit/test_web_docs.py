"""docs/dicomweb.md says what the client and the commands really have."""

import re

import pytest
from options import ROOT
from typer.main import get_command

from gateway.dicomweb import Client, Instance
from gateway.web.commands import web
from gateway.web.exits import CODES, INTERRUPTED, SOME_FAILED

PAGE = (ROOT / "docs" / "dicomweb.md").read_text()
COMMANDS = get_command(web).commands
OWNERS = {"archive": Client, "instance": Instance}


def rows():
    table = PAGE.partition("## Operations")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_operation_is_there_and_tested(row):
    _, _, python, command, _, test = row
    for owner, method in re.findall(r"(archive|instance)\.(\w+)\(", python):
        assert callable(getattr(OWNERS[owner], method))
    for one in re.findall(r"`([^`]+)`", command):
        words = one.split()
        if words[0].startswith("--"):
            words.insert(0, "store")
        options = {name for parameter in COMMANDS[words[0]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
    name = test.strip("`")
    assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def test_every_public_method_and_command_has_its_row():
    told = " ".join(cell for row in rows() for cell in row)
    methods = {name for name in vars(Client) if not name.startswith("_")} - {
        "address",
        "clock_skew",
        "close",
        "correlated",
        "like",
        "store",
    }
    assert {name for name in methods if f"archive.{name}(" not in told} == set()
    commands = {row[3].strip("`").split()[0] for row in rows() if row[3]}
    assert set(COMMANDS) - {"samples"} <= commands


def test_every_exit_code_is_explained():
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert explained == {0, SOME_FAILED, INTERRUPTED, *CODES.values()}
