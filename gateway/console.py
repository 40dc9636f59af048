"""What the commands share: where they print, which configuration they read, how a fault ends them."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gateway.config import Config, load
from gateway.errors import GatewayError

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)

DEFAULT = Path("config.yaml")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file; without it config.yaml, if there is one."),
]


def configuration(path: Path | None) -> Config:
    """Read the configuration that a command is to use; end the command when it has faults."""
    if path is None and not DEFAULT.exists():
        return Config()
    try:
        return load(path or DEFAULT)
    except GatewayError as error:
        fail(error)


def fail(error: GatewayError) -> NoReturn:
    """Say what is wrong and end the command with code 2."""
    ERR.print(str(error), markup=False)
    raise typer.Exit(2)
