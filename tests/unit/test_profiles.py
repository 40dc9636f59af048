"""Which archive it is, the table of profiles says and nothing else asks."""

import ast
import subprocess
import sys

import pytest
from command_line import environment
from options import ROOT

from gateway.translate.profiles import PROFILES

TABLE = ROOT / "gateway" / "translate" / "profiles.py"
# what asks a name: a comparison, a choice by pattern, a look-up by a literal
ASKING = (ast.Compare, ast.MatchValue, ast.Subscript)


def asks(tree):
    """Give the lines that ask for a profile by its name, or for the name of one."""
    flags = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}  # profile.a_flag is right
    for node in ast.walk(tree):
        if not isinstance(node, ASKING):
            continue
        for part in ast.walk(node):
            # every profile but the one that stands for any archive
            literal = isinstance(part, ast.Constant) and part.value in set(PROFILES) - {"standard"}
            name = (
                isinstance(part, ast.Attribute)
                and id(part) not in flags
                and ast.unparse(part).endswith(("profile.name", "archive.profile"))
            )
            types = isinstance(node, ast.Subscript) and ast.unparse(node).startswith("Literal[")
            chosen = ast.unparse(node) == "PROFILES[archive.profile]"
            if (literal or name) and not types and not chosen:
                yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "code",
    [
        "if profile.name == 'azure': pass",
        "x = {'a': 1}['orthanc']",
        "match name:\n case 'aws': pass",
        "archive.profile != x",
    ],
)
def test_this_would_be_seen(code):
    assert list(asks(ast.parse(code)))


def test_nothing_outside_the_table_asks_which_archive_it_is():
    modules = [path for path in (ROOT / "gateway").rglob("*.py") if path != TABLE]
    found = {str(path.relative_to(ROOT)): list(asks(ast.parse(path.read_text()))) for path in modules}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_client_brings_nothing_of_the_rest_of_the_gateway():
    code = "import sys, gateway.dicomweb; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment()
    )
    loaded = set(done.stdout.split())
    ours = {name.split(".")[1] for name in loaded if name.startswith("gateway.")}
    assert ours == {"dicomweb", "translate", "extent", "errors", "status"}
    assert loaded.isdisjoint({"pynetdicom", "pydantic", "typer", "starlette", "uvicorn", "yaml", "sqlite3", "jinja2"})
