"""What comes out beside the gateway's own log lines."""

import subprocess
import sys
from collections.abc import Mapping

import pytest
from structlog.dev import ConsoleRenderer

from gateway.log import Plain

_DECODE = """
import logging
import sys
import pydicom.data
from pydicom import dcmread
from gateway.log import set_up

logging.basicConfig()
if sys.argv[1] == "gateway":
    set_up("debug", "json")
path = pydicom.data.get_testdata_file("JPEG-lossy.dcm", download=False)
try:
    dcmread(path).pixel_array
except RuntimeError:
    print("not decoded")
"""


def test_pixel_data_that_cannot_be_decoded_leave_no_trace_of_a_library_in_the_log() -> None:
    for who, clean in (("anybody", False), ("gateway", True)):
        done = subprocess.run([sys.executable, "-c", _DECODE, who], capture_output=True, check=True)
        assert done.stdout == b"not decoded\n"
        assert (done.stderr == b"") is clean


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"calling": "CT01", "bytes": 10_240, "seconds": 0.001, "address": "127.0.0.1", "status": "0000H"},
        {
            "reason": "two words",
            "calling": "A=B",
            "called": "it's",
            "address": "x\ty",
            "words": 'a "b"',
            "z": "a\r\n",
        },
        {"reason": "", "items": [1, "a b"], "no": None, "yes": True, "map": {"a": 1}, "bytes": b"a", "far": 1e300},
        {"reason": "Grüße, 漢字", "calling": "\\x1b[31m"},
        {"exception": "Traceback\n  line", "status": "0110H"},
        {"logger": "gateway.dimse", "stack": "Stack"},
        {"exc_info": None, "a": 1},
    ],
)
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
@pytest.mark.parametrize("event", ["C-STORE", "connection ended", "ends in spaces  "])
def test_a_plain_line_is_as_structlog_writes_it(event: str, level: str, fields: Mapping[str, object]) -> None:
    whole = {**fields, "event": event, "level": level, "timestamp": "2026-11-29T06:19:48.123456Z"}
    expected = ConsoleRenderer(colors=False, pad_event_to=0)(None, level, dict(whole))
    assert Plain()(None, level, dict(whole)) == expected
