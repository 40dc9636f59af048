"""The command line: thin commands over `gateway.app`."""

import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gateway import demo as demonstration
from gateway import log, signals
from gateway.app import Gateway
from gateway.config import Config, load
from gateway.errors import ConfigError
from gateway.supervisor import supervised

cli = typer.Typer(
    help="A DICOM gateway: DIMSE on the hospital's side, DICOMweb on the archive's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_DEFAULT = Path("config.yaml")
_ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file; without it config.yaml, if there is one."),
]


@cli.command()
def serve(config: _ConfigFile = None) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    settings = _load(config)
    log.set_up(settings.log.level, settings.log.format)
    stop = signals.descriptor(signal.SIGTERM, signal.SIGINT)
    try:
        with supervised(settings) as (gateway, supervisor):
            _greet(gateway)
            supervisor.watch(stop)
    except ConfigError as error:
        _fail(error)


@cli.command("check-config")
def check_config(config: _ConfigFile = None) -> None:
    """Name every fault of a configuration file, with its path in the file and what would be right."""
    path = config or _DEFAULT
    try:
        load(path)
    except ConfigError as error:
        _fail(error)
    _out.print(f"{path} is right.")


@cli.command()
def demo() -> None:
    """Store, find and move a small generated study through a gateway started for it; exit 0 if all was right."""
    raise typer.Exit(0 if demonstration.run(_out) else 1)


def main() -> None:
    """Run the command line."""
    cli()


def _load(path: Path | None) -> Config:
    if path is None and not _DEFAULT.exists():
        return Config()
    try:
        return load(path or _DEFAULT)
    except ConfigError as error:
        _fail(error)


def _fail(error: ConfigError) -> NoReturn:
    _err.print(str(error), markup=False)
    raise typer.Exit(2)


def _greet(gateway: Gateway) -> None:
    listen = gateway.config.listen
    title = next(iter(gateway.config.ae_titles))
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::") else listen.host
    _out.print(f"{title} listens on {listen.host}:{gateway.port}. Try it (with DCMTK's clients):")
    _out.print(f"  echoscu -aec {title} {host} {gateway.port}")
    _out.print(f"  storescu -aec {title} {host} {gateway.port} FILE.dcm")
    keys = "-k QueryRetrieveLevel=STUDY -k StudyInstanceUID -k PatientName"
    _out.print(f"  findscu -S -aec {title} {keys} {host} {gateway.port}")


if __name__ == "__main__":
    main()
