"""A minute of what `scripts/soak` does for half an hour."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1500)
def test_twenty_peers_lose_nothing_while_the_archive_and_the_processes_of_the_gateway_fail(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "soak.run", "--minutes", "1", "--folder", str(tmp_path)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1400, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "Nothing lost, nothing wrong." in done.stdout
