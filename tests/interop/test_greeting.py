"""What `serve` prints at its start holds for whoever types it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from gateway_process import GatewayProcess
from processes import await_true

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"


@pytest.mark.parametrize("sections", [{"unknown_peers": "accept"}, {"peers": {"CT01": {}, "CT02": {}}}])
def test_the_commands_of_the_greeting_succeed(sections: dict[str, Any], tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, **sections) as gateway:
        await_true(lambda: "findscu" in gateway.log, what="the greeting")
        commands = re.findall(r"^  ((?:echo|store|find)scu .*)$", gateway.log, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            words = command.replace("FILE.dcm", str(CT)).split()
            ran = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
            assert ran.returncode == 0, ran.stderr


def test_the_greeting_says_so_when_nobody_may_call(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path) as gateway:
        await_true(lambda: "Nobody may call yet" in gateway.log, what="the greeting")
        assert "echoscu" not in gateway.log
