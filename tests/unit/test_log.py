"""What comes out beside the gateway's own log lines."""

import subprocess
import sys

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
