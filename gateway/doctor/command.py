"""The command `dicom-gateway doctor`."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gateway.app import uses_embedded
from gateway.config import EMBEDDED, Config
from gateway.connecting import connect, embedded_archive
from gateway.console import OUT, ConfigFile, configuration
from gateway.doctor import archives, machine, peers
from gateway.doctor.finding import Finding, Mark, fault, note
from gateway.errors import ConfigError

_STYLES = {Mark.OK: "green", Mark.NOTE: "yellow", Mark.FAULT: "bold red"}


def doctor(
    config: ConfigFile = None,
    *,
    test_object: Annotated[
        bool, typer.Option("--test-object", help="Store a marked test study in each archive, and delete it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON object a line.")] = False,
) -> None:
    """Examine disk, archives and peers, and say what to do about what is found.

    It only searches, unless --test-object is given. Exit code 1: something is to be mended.
    """
    settings, counts = configuration(config), Counter[Mark]()
    table = Table("", "about", "found", "what to do")
    for finding in _findings(settings, test_object=test_object):
        counts[finding.mark] += 1
        if as_json:
            typer.echo(json.dumps(asdict(finding)))
        table.add_row(
            Text(finding.mark, _STYLES[finding.mark]), Text(finding.about), Text(finding.text), Text(finding.advice)
        )
    if not as_json:
        OUT.print(table, soft_wrap=False)
    raise typer.Exit(1 if counts[Mark.FAULT] else 0)


def _findings(config: Config, *, test_object: bool) -> Iterator[Finding]:
    yield from machine.disk(config)
    yield from peers.own_side(config)
    for name, archive in config.archives.items():
        yield from machine.names(name, archive)
        yield from machine.certificate_of(name, archive)
        if archive.certificate:
            about = f"archive {name}"
            yield machine.own_certificate(about, "archives.*.certificate", archive.certificate, archive.key)
        try:
            with connect(name, archive) as client:
                yield from archives.examine(client, archive, test_object=test_object)
        except ConfigError as error:
            for one in error.faults:
                yield fault(f"archive {name}", one.problem, f"correct {one.path}")
    if uses_embedded(config):
        yield from _embedded(config, test_object=test_object)
    yield from peers.destinations(config)


def _embedded(config: Config, *, test_object: bool) -> Iterator[Finding]:
    about, archive = f"archive {EMBEDDED}", embedded_archive(config)
    if archive is None:
        yield note(about, "has no port of its own and was not examined", "set embedded.port to have it examined")
    elif not machine.listens(config.embedded.host, config.embedded.port):
        yield note(about, f"does not listen on port {config.embedded.port}", "start the gateway: dicom-gateway serve")
    else:
        with connect(EMBEDDED, archive) as client:
            yield from archives.examine(client, archive, test_object=test_object)
