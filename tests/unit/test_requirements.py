"""docs/requirements.md maps every requirement by its number to tests that are there."""

import ast
import re

import pytest
from options import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "requirements.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]
NUMBERS = [*map(str, range(1, 129)), "128b", *map(str, range(129, 134))]
STATES = ("met", "partly: ", "otherwise: ", "not offered")


def named(row):
    return re.findall(r"`([^`]+)`", row[4])


def functions(file):
    """Give the names of a file's tests, those of its classes among them."""
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_number_is_there_once_and_in_order():
    assert [row[0] for row in ROWS] == NUMBERS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_requirement_has_its_rule_weight_state_and_tests(row):
    _, rule, asked, _, _, state = row
    assert re.fullmatch(r"[A-Z]{3}-\d\d.*", rule)
    assert re.match(r"[MSO]: \S", asked)
    assert state.startswith(STATES)
    assert named(row) or state.startswith("not offered")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_tests_that_prove_a_requirement_are_there(row):
    for name in named(row):
        file, _, function = name.partition("::")
        assert function.startswith("test_"), name
        assert function in functions(file), name
