"""Show the whole way on generated data: store, find, move, compare; everything on loopback, in a temporary folder."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gateway import log
from gateway.app import running
from gateway.config import Config, parse
from gateway.dimse.workstation import Received, Workstation, receiving
from gateway.errors import GatewayError
from gateway.translate.generate import Generated, demo_study
from gateway.translate.part10 import read_file_meta

_TITLE, _RECEIVER = "GATEWAY", "RECEIVER"


def run(out: Console) -> bool:
    """Run the demonstration, print a table of what happened and say whether all of it was right."""
    log.set_up("error", "console")
    table = Table("step", "result", "seconds", title="dicom-gateway demo")
    right = True

    def step(name: str, action: Callable[[], str]) -> None:
        nonlocal right
        begun = time.perf_counter()
        try:
            result = action()
        except GatewayError as error:
            result, right = f"[red]failed: {error}[/]", False
        table.add_row(name, result, f"{time.perf_counter() - begun:.2f}")

    with tempfile.TemporaryDirectory(prefix="dicom-gateway-") as name:
        folder = Path(name)
        study = demo_study(folder / "study")
        syntaxes = sorted({instance.transfer_syntax for instance in study})
        with receiving(_RECEIVER, syntaxes) as (port, received), running(_config(folder, port)) as gateway:
            workstation = Workstation("DEMO", "127.0.0.1", gateway.port, _TITLE)
            step("C-ECHO", lambda: _echo(workstation))
            step("C-STORE", lambda: _store(workstation, study))
            step("C-FIND", lambda: _find(workstation, study))
            step("C-MOVE", lambda: _move(workstation, study))
            step("compare", lambda: _compare(study, received))
    out.print(table)
    out.print("All of it was right." if right else "[red]Something went wrong.[/]")
    return right


def _config(folder: Path, receiver_port: int) -> Config:
    return parse(
        {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 5},
            "peers": {"DEMO": {}, _RECEIVER: {"host": "127.0.0.1", "port": receiver_port}},
            "spool": {"folder": str(folder / "spool"), "high_water": 1.0},
        },
        "the demonstration's configuration",
    )


def _echo(workstation: Workstation) -> str:
    _expect(workstation.echo(), 0x0000)
    return "the gateway answers"


def _store(workstation: Workstation, study: list[Generated]) -> str:
    for status in workstation.store([instance.path for instance in study]):
        _expect(status, 0x0000)
    size = sum(instance.path.stat().st_size for instance in study)
    return f"{len(study)} instances, {size / 1e6:.1f} MB, in the archive"


def _find(workstation: Workstation, study: list[Generated]) -> str:
    uid = study[0].study
    series = workstation.find(QueryRetrieveLevel="SERIES", StudyInstanceUID=uid, SeriesInstanceUID="", Modality="")
    expected = {instance.series for instance in study}
    if {str(entry.SeriesInstanceUID) for entry in series} != expected:
        raise GatewayError(f"found {len(series)} series instead of {len(expected)}")
    return f"{len(series)} series: " + ", ".join(sorted({str(entry.Modality) for entry in series}))


def _move(workstation: Workstation, study: list[Generated]) -> str:
    _expect(workstation.move(_RECEIVER, QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].study), 0x0000)
    return f"the study was sent to {_RECEIVER}"


def _compare(study: list[Generated], received: Received) -> str:
    for instance in study:
        with instance.path.open("rb") as file:
            meta = read_file_meta(file)
            file.seek(meta.offset)
            sent = (meta.transfer_syntax, file.read())
        if received.instances.get(meta.sop_instance) != sent:
            raise GatewayError(f"instance {meta.sop_instance} came back changed or not at all")
    return f"{len(study)} instances came back as they went in, byte for byte"


def _expect(status: int, wanted: int) -> None:
    if status != wanted:
        raise GatewayError(f"status {status:04X}H instead of {wanted:04X}H")
