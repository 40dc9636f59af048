"""Run DCMTK's clients and its storage receiver: peers that share no code with the gateway."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import processes
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from samples import data_sets

# The letter with which storescu proposes (-x?), getscu and storescp prefer (+x?) a transfer syntax.
LETTERS = {
    ExplicitVRLittleEndian: "e",
    ImplicitVRLittleEndian: "i",
    ExplicitVRBigEndian: "b",
    DeflatedExplicitVRLittleEndian: "d",
    RLELossless: "r",
    JPEGBaseline8Bit: "y",
    JPEGExtended12Bit: "x",
    JPEGLosslessSV1: "s",
    JPEGLSLossless: "t",
    JPEGLSNearLossless: "u",
    JPEG2000Lossless: "v",
    JPEG2000: "w",
}

# echoscu says its status in words only.
_STATUS = re.compile(r"DIMSE Status +: 0x([0-9a-f]{4})|Received Echo Response \((Success)\)")
_COUNTER = re.compile(r"(Remaining|Completed|Failed|Warning) Suboperations +: (\w+)")


@dataclass(frozen=True)
class Result:
    """What a client did: its exit code, all it printed in debug mode, and the identifiers that findscu got."""

    returncode: int
    output: str
    responses: list[Dataset] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        """The statuses of all responses, in order."""
        return [int(code or "0", 16) for code, _ in _STATUS.findall(self.output)]

    @property
    def status(self) -> int:
        """The last response's status; fails when no response came."""
        assert self.statuses, self.output[-3000:]
        return self.statuses[-1]

    @property
    def rejected(self) -> bool:
        return "Association Rejected" in self.output

    @property
    def counters(self) -> list[dict[str, int]]:
        """The sub-operation counters of each C-MOVE or C-GET response that has a status, in order."""
        found: list[dict[str, int]] = []
        for message in self.output.split("INCOMING DIMSE MESSAGE")[1:]:
            if re.search(r"Message Type +: C-(MOVE|GET) RSP", message):
                pairs = _COUNTER.findall(message.split("END DIMSE MESSAGE")[0])
                found.append({name.lower(): int(value) for name, value in pairs if value.isdecimal()})
        return found


def run(
    tool: str, *arguments: str | Path, seconds: float = 120, environment: Mapping[str, str] | None = None
) -> Result:
    """Run any of DCMTK's tools in debug mode."""
    done = subprocess.run(
        [tool, "-d", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return Result(done.returncode, done.stdout.decode(errors="replace"))


def _titles(called: str, calling: str) -> list[str]:
    return ["-aec", called, "-aet", calling]


def echoscu(port: int, *, called: str = "GATEWAY", calling: str = "DCMTK", seconds: float = 30) -> Result:
    return run("echoscu", *_titles(called, calling), "127.0.0.1", str(port), seconds=seconds)


def storescu(
    port: int,
    *paths: Path,
    syntax: str | None = None,
    called: str = "GATEWAY",
    calling: str = "DCMTK",
    options: Sequence[str] = (),
    seconds: float = 120,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Store files, going on after a failure; `syntax` is proposed first, uncompressed ones when it is None."""
    proposed = [f"-x{LETTERS[syntax]}"] if syntax is not None else []
    return run(
        "storescu",
        *(*proposed, "-R", "-nh", *_titles(called, calling), *options),
        *("127.0.0.1", str(port), *paths),
        seconds=seconds,
        environment=environment,
    )


def dcmsend(
    port: int,
    *paths: Path,
    called: str = "GATEWAY",
    calling: str = "DCMTK",
    options: Sequence[str] = (),
    seconds: float = 120,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Store files as they are, each in its own transfer syntax; folders are searched."""
    return run(
        "dcmsend",
        *("-dn", "-nh", "-nuc", "+sd", "+r", *_titles(called, calling), *options),
        *("127.0.0.1", str(port), *paths),
        seconds=seconds,
        environment=environment,
    )


def findscu(
    port: int,
    *keys: str,
    model: str = "S",
    called: str = "GATEWAY",
    calling: str = "DCMTK",
    options: Sequence[str] = (),
    seconds: float = 60,
) -> Result:
    """Query with keys such as "PatientName=A*"; `model` is S, P or O; the responses are read from its files."""
    with tempfile.TemporaryDirectory(prefix="findscu-") as folder:
        result = run(
            "findscu",
            *(f"-{model}", *_titles(called, calling), *options, "-X", "-od", folder),
            *("127.0.0.1", str(port), *_keys(keys)),
            seconds=seconds,
        )
        responses = [dcmread(path, force=True) for path in sorted(Path(folder).glob("rsp*.dcm"))]
    return Result(result.returncode, result.output, responses)


def movescu(
    port: int,
    destination: str,
    *keys: str,
    model: str = "P",
    called: str = "GATEWAY",
    calling: str = "DCMTK",
    options: Sequence[str] = (),
    seconds: float = 120,
) -> Result:
    """Have what the keys name sent to `destination`; Patient Root is the client's own default."""
    return run(
        "movescu",
        *(f"-{model}", *_titles(called, calling), "-aem", destination, *options),
        *("127.0.0.1", str(port), *_keys(keys)),
        seconds=seconds,
    )


def getscu(
    port: int,
    folder: Path,
    *keys: str,
    model: str = "P",
    syntax: str | None = None,
    called: str = "GATEWAY",
    calling: str = "DCMTK",
    options: Sequence[str] = (),
    seconds: float = 120,
) -> Result:
    """Get what the keys name into `folder`, byte for byte; `syntax` is preferred, Implicit VR LE alone accepted."""
    preferred = [f"+x{LETTERS[syntax]}"] if syntax is not None else []
    folder.mkdir(parents=True, exist_ok=True)
    return run(
        "getscu",
        *(f"-{model}", *_titles(called, calling), *preferred, *options, "+B", "-od", folder),
        *("127.0.0.1", str(port), *_keys(keys)),
        seconds=seconds,
    )


def _keys(keys: Sequence[str]) -> list[str]:
    return [part for key in keys for part in ("-k", key)]


@dataclass(frozen=True)
class Receiver:
    """A running storescp."""

    title: str
    port: int
    folder: Path
    log_path: Path
    pid: int

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def data_sets(self) -> dict[str, bytes]:
        """The data sets received, by SOP Instance UID."""
        return data_sets(self.folder)

    def file(self, sop_instance: str) -> Path:
        """The file of one instance; fails when it was not received."""
        (path,) = (path for path in self.files if path.name.endswith(f".{sop_instance}"))
        return path

    def clear(self) -> None:
        for path in self.files:
            path.unlink()


@contextmanager
def storescp(
    folder: Path,
    *,
    port: int | None = None,
    title: str = "STORESCP",
    syntaxes: Sequence[str] | None = None,
    classes: Sequence[str] = (CTImageStorage,),
    options: Sequence[str] = (),
) -> Iterator[Receiver]:
    """Receive into `folder`, byte for byte.

    Without `syntaxes` every SOP class and transfer syntax that DCMTK knows is accepted, unknown classes too;
    with them only these, for `classes` and Verification.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix="storescp-", dir=folder.parent))
    port = port or processes.free_port()
    accepted: list[str | Path] = ["+xa", "-pm"]
    if syntaxes is not None:
        profile = beside / "storescp.cfg"
        profile.write_text(_profile(syntaxes, classes))
        accepted = ["-xf", profile, "Chosen"]
    command = ["storescp", "-d", "-aet", title, "-dhl", "+B", "-od", folder, *accepted, *options, str(port)]
    log = beside / "storescp.log"
    with processes.running(command, log, lambda: processes.answers(port)) as process:
        yield Receiver(title, port, folder, log, process.pid)


def _profile(syntaxes: Sequence[str], classes: Sequence[str]) -> str:
    listed = [f"TransferSyntax{number} = {uid}" for number, uid in enumerate(syntaxes, 1)]
    contexts = [
        f"PresentationContext{number} = {uid}\\Syntaxes"
        for number, uid in enumerate(("1.2.840.10008.1.1", *classes), 1)
    ]
    return "\n".join(
        (
            *("[[TransferSyntaxes]]", "[Syntaxes]", *listed),
            *("[[PresentationContexts]]", "[Contexts]", *contexts),
            *("[[Profiles]]", "[Chosen]", "PresentationContexts = Contexts", ""),
        )
    )
