"""What parses bytes from outside, and inputs for it: valid ones, valid ones that were damaged, and noise.

`python -m fuzzing --inputs 1000000` from the folder of the tests runs it at length and prints a table; a target
that raises what it may not, hangs or grows ends the run with an error.
"""

import argparse
import faulthandler
import json
import socket
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.config import Config, parse
from gateway.dimse import commands, pdu
from gateway.dimse.negotiation import accept, reject_reason
from gateway.dimse.pdu import AssociateRequest, ProposedContext, UserInformation
from gateway.dimse.upper_layer import Connection, fragments
from gateway.errors import DataSetError, IdentifierError, MultipartError, PeerError
from gateway.translate.dicom_json import from_dataset, to_dataset
from gateway.translate.identifier import decode_identifier, encode_identifier
from gateway.translate.multipart import boundary_of, split
from gateway.translate.part10 import file_header, read_file_meta, read_identity
from gateway.translate.profiles import PROFILES
from gateway.translate.search import Model, Negotiated, matches, plan

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, "1.2.840.10008.1.2.2", DeflatedExplicitVRLittleEndian)
LONGEST = 20.0  # seconds for one input: it hangs then
GROWTH = 64 << 20  # bytes that the process may grow in a run


@dataclass(frozen=True)
class Target:
    """A parser, and the errors that it may raise; with valid inputs to damage."""

    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Sequence[bytes]


def identifier() -> Dataset:
    keys = Dataset()
    keys.SpecificCharacterSet = "ISO 2022 IR 87"
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientName = "Yamada^Tarou=山田^太郎"
    keys.StudyDate = "20200101-20201231"
    keys.StudyInstanceUID = ["1.2.3", "1.2.4"]
    keys.NumberOfStudyRelatedInstances = None
    item = Dataset()
    item.CodeValue = "X"
    keys.ProcedureCodeSequence = [item]
    return keys


REQUEST = AssociateRequest(
    "GATEWAY",
    "FUZZ",
    1,
    pdu.APPLICATION_CONTEXT,
    (
        ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),
        ProposedContext(3, "1.2.840.10008.5.1.4.1.2.2.1", ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")),
    ),
    UserInformation(
        16_384,
        "1.2.3",
        "FUZZ",
        roles={"1.2.840.10008.1.1": (True, True)},
        extended={"1.2.3": b"\1\1"},
        asynchronous=(1, 1),
    ),
)
COMMAND = commands.encode(
    {
        "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "CommandField": commands.C_STORE_RQ,
        "MessageID": 1,
        "CommandDataSetType": commands.DATA_SET_PRESENT,
        "AffectedSOPInstanceUID": "1.2.3",
    }
)
ROW = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "山"}]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00080020": {"vr": "DA", "Value": ["20200101"]},
    "00201208": {"vr": "IS", "Value": [12]},
    "00081032": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["X"]}}]},
    "7FE00010": {"vr": "OW", "InlineBinary": "AAAA"},
}
HEAD = b"\r\nContent-Type: application/dicom\r\n\r\n"
MULTIPART = b"--b" + HEAD + b"\0\1--\r\n--b" + HEAD + b"\r\n--b--\r\n"
CONFIG: Config = parse({"unknown_peers": "accept"}, "fuzz")


def _request(data: bytes) -> None:
    request = pdu.decode_request(data)
    if reject_reason(request, CONFIG, "127.0.0.1") is None:
        answer = accept(request, CONFIG)
        pdu.decode_accept(pdu.encode_accept(request, answer.results, answer.user)[6:])


def _wire(data: bytes) -> None:
    """Have a connection read what a peer wrote before it left."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data[:100_000])
    connection = Connection(ours, max_pdu=16_384, timeout=1)
    try:
        while True:
            kind, body = connection.next_pdu(time.monotonic() + 1)
            if kind == 4:
                for fragment in fragments(body):
                    bytes(fragment.data)
    finally:
        connection.close()


def _identifier(data: bytes) -> None:
    syntax = SYNTAXES[data[0] % len(SYNTAXES)] if data else SYNTAXES[0]
    keys = decode_identifier(data[1:], syntax)
    for model in Model:
        for profile in ("standard", "azure"):
            try:
                search = plan(keys, model, PROFILES[profile], Negotiated())
            except IdentifierError:
                continue
            matches(search, ROW)
    encode_identifier(keys, ExplicitVRLittleEndian)


def _json(data: bytes) -> None:
    try:
        model = json.loads(data)
    except (ValueError, RecursionError):
        return
    for row in model if isinstance(model, list) else [model]:
        if isinstance(row, dict):
            dataset, _ = to_dataset(row)
            from_dataset(dataset, bulk=False)
            keys = identifier()
            matches(plan(keys, Model.STUDY_ROOT, PROFILES["standard"], Negotiated()), row)


def _multipart(data: bytes) -> None:
    size = data[0] % 16 + 1 if data else 1
    chunks = [data[at : at + size] for at in range(1, len(data), size)]
    for part in split(chunks, "b"):
        b"".join(part.body)


def _content_type(data: bytes) -> None:
    boundary_of(data.decode("latin-1"))


def _file(data: bytes) -> None:
    stream = BytesIO(data)
    meta = read_file_meta(stream)
    stream.seek(meta.offset)
    read_identity(stream, meta.transfer_syntax)


def _data_set(data: bytes) -> None:
    read_identity(BytesIO(data[1:]), SYNTAXES[data[0] % len(SYNTAXES)] if data else SYNTAXES[0])


def _seeds() -> dict[str, bytes]:
    return {syntax: bytes([number]) + _encoded(syntax) for number, syntax in enumerate(SYNTAXES)}


def _encoded(syntax: str) -> bytes:
    return encode_identifier(identifier(), syntax)


TARGETS = {
    "A-ASSOCIATE-RQ": Target(_request, (PeerError,), [pdu.encode_request(REQUEST)[6:]]),
    "upper layer": Target(
        _wire,
        (PeerError,),
        [
            pdu.encode_request(REQUEST),
            struct.pack(">BxIIBB", 4, len(COMMAND) + 6, len(COMMAND) + 2, 1, 3) + COMMAND,
            pdu.RELEASE_REQUEST + pdu.encode_abort(0),
        ],
    ),
    "command set": Target(commands.decode, (PeerError,), [COMMAND]),
    "identifier": Target(_identifier, (IdentifierError,), list(_seeds().values())),
    "data set": Target(_data_set, (DataSetError,), list(_seeds().values())),
    "Part 10 file": Target(
        _file, (DataSetError,), [file_header("1.2", "1.3", ExplicitVRLittleEndian) + _encoded(ExplicitVRLittleEndian)]
    ),
    "DICOM JSON": Target(_json, (), [json.dumps([ROW]).encode(), json.dumps(ROW).encode()]),
    "multipart": Target(_multipart, (MultipartError,), [b"\7" + MULTIPART]),
    "Content-Type": Target(_content_type, (MultipartError,), [b'multipart/related; type="x/y"; boundary="b"']),
}


Edit = tuple[int, int, bytes]
_EDIT = st.tuples(st.integers(0, 1 << 12), st.integers(0, 3), st.binary(max_size=6))


def inputs(target: Target) -> st.SearchStrategy[list[bytes]]:
    """Give noise, and valid inputs with some bytes changed, left out, doubled or put in, whole and cut."""
    return st.builds(_family, st.just(target), st.lists(_EDIT, min_size=1, max_size=6), st.binary(max_size=100))


def _family(target: Target, edits: list[Edit], noise: bytes) -> list[bytes]:
    """Make several inputs of what was drawn, for drawing takes longer than most parsers."""
    made = [noise]
    for seed in target.seeds:
        for number in range(len(edits)):
            damaged = _damage(seed, edits[number:])
            cut = edits[number][0] % (len(damaged) + 1)
            made += [damaged, damaged[:cut], damaged[:cut] + noise]
    return made


def _damage(seed: bytes, edits: list[Edit]) -> bytes:
    data = bytearray(seed)
    for place, kind, piece in edits:
        at = place % (len(data) + 1)
        if kind == 0:
            data[at : at + len(piece)] = piece
        elif kind == 1:
            data[at:at] = piece
        elif kind == 2:
            del data[at : at + 1 + len(piece)]
        else:
            data[at:] = data[at : at + 40] * 2 + data[at + 40 :]
    return bytes(data)


def attack(target: Target, data: bytes) -> None:
    """Run a parser on an input; raises what it may not raise."""
    with warnings.catch_warnings(), suppress(*target.allowed):
        warnings.simplefilter("ignore")  # pydicom's about what it reads
        target.run(data)


def fuzz(name: str, number: int, *, shrink: bool = False) -> int:
    """Have `number` families of inputs drawn and run them; give how many inputs it were."""
    target, count = TARGETS[name], 0

    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(target))
    def run(family: list[bytes]) -> None:
        nonlocal count
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        for data in family:
            count += 1
            attack(target, data)

    try:
        run()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return count


_ROUND = 1_000
"""Families of one run of hypothesis: it keeps what it tried, and would slow down."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--only", choices=TARGETS, action="append")
    arguments = parser.parse_args()
    names = arguments.only or list(TARGETS)
    process, total = psutil.Process(), 0
    print(f"| {'parser':16} | inputs | seconds | memory before, MB | after |\n|---|---|---|---|---|")
    for name in names:
        fuzz(name, 100)  # what is loaded once
        before, begun, count = process.memory_info().rss, time.monotonic(), 0
        while count < arguments.inputs // len(names):
            count += fuzz(name, _ROUND)
        after, total = process.memory_info().rss, total + count
        seconds = time.monotonic() - begun
        print(f"| {name:16} | {count:,} | {seconds:.0f} | {before >> 20} | {after >> 20} |", flush=True)
        if after - before > GROWTH:
            raise SystemExit(f"{name} grew by {after - before:,} bytes")
    print(f"{total:,} inputs, no crash, no hang.")


if __name__ == "__main__":
    main()
