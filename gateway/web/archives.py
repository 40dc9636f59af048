"""Find the archive that a command is meant for."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from gateway.config import EMBEDDED, Archive, Config
from gateway.connecting import connect, embedded_archive
from gateway.console import ConfigFile, configuration
from gateway.dicomweb import Client
from gateway.errors import ConfigError, Fault
from gateway.web.exits import explained
from gateway.web.show import console

ArchiveName = Annotated[
    str | None,
    typer.Option(
        "--archive",
        "-a",
        help="An archive of the configuration; without it that of the first AE title.",
        envvar="DICOMWEB_ARCHIVE",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="The archive's base URL, what comes before /studies, in place of --archive.", envvar="DICOMWEB_URL"
    ),
]
ProfileName = Annotated[
    str,
    typer.Option(
        help="With --url: standard, azure, google, orthanc, dcm4chee, aws or embedded.", envvar="DICOMWEB_PROFILE"
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="With --url: a file with a bearer token.", envvar="DICOMWEB_TOKEN_FILE"),
]


def on_archive(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name an archive and, as its first argument, a client of that archive.

    What fails ends it with its text and exit code.
    """

    def run(**arguments: Any) -> None:
        with explained(console(stderr=True)), _client(**{name: arguments.pop(name) for name in options}) as client:
            command(client, **arguments)

    own = inspect.signature(command)
    options = inspect.signature(_client).parameters
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*list(own.parameters.values())[1:], *options.values())
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = own.replace(parameters=parameters)  # what Typer reads
    return run


def _client(
    archive: ArchiveName = None,
    url: Url = None,
    config: ConfigFile = None,
    profile: ProfileName = "standard",
    token_file: TokenFile = None,
) -> Client:
    """Make the client of an archive by its URL, or by its name in the configuration; raises ConfigError."""
    if url is not None and archive is not None:
        raise ConfigError("the command", (Fault("--archive", "stands beside --url; give one of them"),))
    if url is not None:
        return connect(urlsplit(url).netloc, _by_url(url, profile, token_file))
    settings = configuration(config)
    name = archive or next(iter(settings.ae_titles.values())).archive
    return connect(name, _by_name(settings, name))


def _by_url(url: str, profile: str, token: Path | None) -> Archive:
    auth = {"kind": "bearer", "token_file": token} if token is not None else {"kind": "none"}
    try:
        return Archive.model_validate({"url": url, "profile": profile, "auth": auth})
    except ValidationError as error:
        faults = tuple(Fault(f"--{item['loc'][0]}", item["msg"]) for item in error.errors())
        raise ConfigError("the command", faults) from error


def _by_name(settings: Config, name: str) -> Archive:
    if name in settings.archives:
        return settings.archives[name]
    if name != EMBEDDED:
        known = ", ".join(sorted({*settings.archives, EMBEDDED}))
        raise ConfigError("the command", (Fault("--archive", f"{name} is not one of: {known}"),))
    embedded = embedded_archive(settings)
    if embedded is None:
        problem = "is 0, so nobody knows where the embedded archive listens: set it, or use --url"
        raise ConfigError("the configuration", (Fault("embedded.port", problem),))
    return embedded
