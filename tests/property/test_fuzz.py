"""Whatever bytes come from outside, a parser raises the errors that it names, or none; it neither hangs nor grows."""

import pytest
from fuzzing import TARGETS, attack, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_crashes_a_parser(name: str) -> None:
    assert fuzz(name, 60, shrink=True) >= 100


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_input_is_taken(name: str) -> None:
    for seed in TARGETS[name].seeds:
        if name == "upper layer":  # ends with the connection
            attack(TARGETS[name], seed)
        else:
            TARGETS[name].run(seed)
