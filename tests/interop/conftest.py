"""A gateway in front of its embedded archive, then in front of Orthanc, with real receivers to move to."""

import json
from contextlib import ExitStack

import dcmtk
import processes
import pytest
import samples as sample_files
from gateway_process import GatewayProcess
from orthanc import Orthanc

CALLERS = ("DCMTK", "BENCH")


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    found = sample_files.samples(tmp_path_factory.mktemp("samples"))
    assert sum(one.complete for one in found) > 150
    return found


@pytest.fixture(scope="session")
def receivers(tmp_path_factory, samples):
    """Run a storescp that takes everything, and one for each transfer syntax that takes it alone."""
    folder = tmp_path_factory.mktemp("receivers")
    classes = sorted({one.sop_class for one in samples})
    with ExitStack() as stack:
        running = {"": stack.enter_context(dcmtk.storescp(folder / "all" / "files", title="RECEIVER"))}
        for syntax, letter in dcmtk.LETTERS.items():
            scp = dcmtk.storescp(
                folder / letter / "files", title=f"ONLY_{letter}", syntaxes=[syntax], classes=classes
            )
            running[syntax] = stack.enter_context(scp)
        yield running


@pytest.fixture
def receiver(receivers):
    """Give the storescp that takes everything, emptied."""
    receivers[""].clear()
    return receivers[""]


@pytest.fixture(scope="session")
def peers(receivers):
    """Give the peers of every gateway here: who may call, and where instances may be moved to."""
    destinations = {scp.title: {"host": "127.0.0.1", "port": scp.port} for scp in receivers.values()}
    absent = {"host": "127.0.0.1", "port": processes.free_port()}
    return {**{title: {} for title in CALLERS}, **destinations, "ABSENT": absent}


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Give what DCMTK makes of files when it sends them, by SOP Instance UID: it encodes them anew."""

    def reference(send, *files, **options):
        folder = tmp_path_factory.mktemp("reference") / "files"
        with dcmtk.storescp(folder) as scp:
            result = send(scp.port, *files, called=scp.title, **options)
            assert result.returncode == 0, result.output[-3000:]
            return sample_files.data_sets(scp.folder)

    return reference


@pytest.fixture(scope="session")
def start_gateway(peers):
    """Make a gateway that knows the peers and logs JSON; `sections` are added to its configuration."""

    def start_gateway(folder, **sections):
        return GatewayProcess(folder, peers=peers, log={"format": "json"}, **sections)

    return start_gateway


@pytest.fixture(scope="module", params=["embedded", "orthanc"])
def gateway(request, start_gateway, tmp_path_factory):
    """Run a gateway for a module's tests, with an empty archive behind it."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        sections = {}
        if request.param == "orthanc":
            orthanc = stack.enter_context(Orthanc(folder))
            sections = {
                "archives": {"orthanc": {"url": orthanc.url, "profile": "orthanc"}},
                "ae_titles": {"GATEWAY": {"archive": "orthanc"}},
            }
        running = stack.enter_context(start_gateway(folder, **sections))
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="session")
def log_lines():
    """Read a gateway's log: one mapping of fields a line."""

    def log_lines(gateway):
        return [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]

    return log_lines
