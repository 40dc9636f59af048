"""Run stock pynetdicom as a C-STORE receiver, written as its documentation does: to files, or on by STOW-RS."""

import argparse
import secrets
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, evt

_PIECE = 65_536  # httpx writes larger pieces in quadratic time


def write(event: evt.Event, folder: Path) -> int:
    """Write the data set as it came; this is the documentation's faster way."""
    with (folder / event.request.AffectedSOPInstanceUID).open("wb") as file:
        file.write(b"\x00" * 128)
        file.write(b"DICM")
        write_file_meta_info(file, event.file_meta)
        file.write(event.request.DataSet.getvalue())
    return 0x0000


def post(event: evt.Event, client: httpx.Client, url: str) -> int:
    """Store the data set with STOW-RS before it is answered."""
    boundary = secrets.token_hex(16)
    meta = BytesIO()
    write_file_meta_info(meta, event.file_meta)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = (
        head,
        bytes(128),
        b"DICM",
        meta.getvalue(),
        event.request.DataSet.getvalue(),
        f"\r\n--{boundary}--\r\n".encode(),
    )

    def body() -> Iterator[bytes]:
        for part in parts:
            for start in range(0, len(part), _PIECE):
                yield part[start : start + _PIECE]

    response = client.post(
        f"{url}/studies",
        content=body(),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(sum(map(len, parts))),
            "Accept": "application/dicom+json",
        },
    )
    return 0x0000 if response.status_code == 200 else 0xA700


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--associations", type=int, default=10)  # as pynetdicom
    given = parser.parse_args()
    handler: tuple[Callable[..., int], list[object]] = (write, [given.folder])
    if given.url:
        handler = (post, [httpx.Client(trust_env=False, timeout=60), given.url])
    ae = AE()
    ae.supported_contexts = AllStoragePresentationContexts
    ae.maximum_associations = given.associations
    ae.start_server(("127.0.0.1", given.port), block=True, evt_handlers=[(evt.EVT_C_STORE, *handler)])


if __name__ == "__main__":
    main()
