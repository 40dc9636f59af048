"""Turns with a destination are counted over all processes of a gateway, and those of a dead one are free."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.dimse.shares import SharedTurns
from gateway.errors import Cancelled

HOLD = """
import sys, time
from pathlib import Path
from gateway.dimse.shares import SharedTurns
with SharedTurns(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]).turn(lambda: False):
    print("held", flush=True)
    time.sleep(300)
"""


@contextmanager
def held(number: int, file: Path, name: str = "DEST") -> Iterator[subprocess.Popen[str]]:
    """Hold a turn in another process."""
    command = [sys.executable, "-c", HOLD, str(number), str(file), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def is_free(number: int, file: Path, name: str = "DEST") -> bool:
    try:
        with SharedTurns(number, file, name).turn(lambda: True):
            return True
    except Cancelled:
        return False


def test_turns_are_counted_over_processes(tmp_path: Path) -> None:
    file = tmp_path / "moves"
    with held(2, file):
        assert is_free(2, file)
        with held(2, file):
            assert not is_free(2, file)
            assert is_free(2, file, "OTHER")
        assert is_free(2, file)


def test_turns_are_counted_within_a_process(tmp_path: Path) -> None:
    file = tmp_path / "moves"
    with SharedTurns(2, file, "DEST").turn(lambda: False):
        assert is_free(2, file)
        assert not is_free(1, file)


def test_who_waits_has_the_turn_of_a_process_that_dies(tmp_path: Path) -> None:
    file = tmp_path / "moves"
    with held(1, file) as process:

        def killed() -> bool:
            process.kill()
            return False

        with SharedTurns(1, file, "DEST").turn(killed):
            assert process.wait(60) == -9


@pytest.mark.parametrize("number", [1, 2])
def test_without_a_file_a_process_counts_for_itself(tmp_path: Path, number: int) -> None:
    turns = SharedTurns(number, tmp_path / "nowhere" / "moves", "DEST")
    with turns.turn(lambda: False):
        try:
            with turns.turn(lambda: True):
                assert number == 2
        except Cancelled:
            assert number == 1
