"""The command line: thin commands over `gateway.app`."""

import resource
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from gateway import demo as demonstration
from gateway import explain as explanation
from gateway import log, queue, rejections, signals
from gateway.admin import password
from gateway.app import Gateway
from gateway.config import load
from gateway.conformance import conformance
from gateway.console import DEFAULT, ERR, OUT, ConfigFile, configuration, fail
from gateway.doctor.command import doctor
from gateway.errors import ConfigError
from gateway.reload import ConfigSource
from gateway.supervisor import supervised
from gateway.web.commands import web

cli = typer.Typer(
    help="A DICOM gateway: DIMSE on the hospital's side, DICOMweb on the archive's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(queue.commands, name="queue")
cli.add_typer(rejections.commands, name="rejections")
cli.add_typer(web, name="web")
cli.command()(doctor)
cli.command()(conformance)

# Seconds that a thread may keep the others waiting for the interpreter, in this process and those forked from it: by
# default as long as an archive needs for a page, which then is asked for a page later
_SWITCH = 0.001


@cli.command()
def serve(config: ConfigFile = None) -> None:
    """Run the gateway until SIGTERM or SIGINT; SIGHUP has it read its configuration again."""
    settings = configuration(config)
    log.set_up(settings.log.level, settings.log.format)
    came = signals.descriptor(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    sys.setswitchinterval(_SWITCH)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an association takes two descriptors and more
    try:
        with supervised(settings, ConfigSource(config or DEFAULT), came) as (gateway, supervisor, reload):
            with suppress(OSError):  # nobody needs to read it
                _greet(gateway)
            supervisor.watch(reload)
    except ConfigError as error:
        fail(error)


@cli.command("check-config")
def check_config(config: ConfigFile = None) -> None:
    """Name every fault of a configuration file, with its path in the file and what would be right."""
    path = config or DEFAULT
    try:
        load(path)
    except ConfigError as error:
        fail(error)
    OUT.print(f"{path} is right.")


@cli.command("admin-password")
def admin_password() -> None:
    """Ask for a password for the status page, or read it from a pipe; print the line for admin.password_file."""
    if sys.stdin.isatty():
        given = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        given = sys.stdin.readline().rstrip("\n")
    if not given:
        ERR.print("A password is needed.")
        raise typer.Exit(2)
    OUT.print(password.hashed(given))


@cli.command()
def demo() -> None:
    """Store, find and move a small generated study through a gateway started for it; exit 0 if all was right."""
    raise typer.Exit(0 if demonstration.run(OUT) else 1)


@cli.command()
def explain(
    keys: Annotated[list[str], typer.Argument(help="KEYWORD=VALUE, or KEYWORD alone to have it returned.")],
    *,
    level: Annotated[str, typer.Option(help="Query/Retrieve Level; without it the peer's default, or STUDY.")] = "",
    title: Annotated[str, typer.Option(help="The called AE title; without it the first of ae_titles.")] = "",
    peer: Annotated[str, typer.Option(help="The AE title of the peer that asks, for its configuration.")] = "",
    model: Annotated[explanation.Root, typer.Option(help="The information model.")] = explanation.Root.STUDY,
    relational: Annotated[
        bool, typer.Option("--relational", help="As if relational queries were negotiated.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Ask the archive a query and show what is sent, what is matched here and why, and the time of each step.

    Prints patient data. Exit 1 if the query fails.
    """
    settings = configuration(config)
    log.set_up("error", "console")
    question = explanation.Question(keys, level.upper(), title, peer, model, relational)
    try:
        is_answered = explanation.run(OUT, settings, question)
    except ConfigError as error:
        fail(error)
    raise typer.Exit(0 if is_answered else 1)


def main() -> None:
    """Run the command line."""
    cli()


def _greet(gateway: Gateway) -> None:
    listen = gateway.config.listen
    title = next(iter(gateway.config.ae_titles))
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::") else listen.host
    OUT.print(f"{title} listens on {listen.host}:{gateway.port}.")
    if gateway.page:
        OUT.print(f"Status page: {gateway.page}")
    caller = next(iter(gateway.config.peers), "")
    if gateway.config.unknown_peers == "reject" and not caller:
        OUT.print("Nobody may call yet: name the callers in peers, or set unknown_peers to accept.")
        return
    titles = f"-aec {title}" if gateway.config.unknown_peers == "accept" else f"-aet {caller} -aec {title}"
    OUT.print("Try it (with DCMTK's clients):")
    OUT.print(f"  echoscu {titles} {host} {gateway.port}")
    OUT.print(f"  storescu {titles} {host} {gateway.port} FILE.dcm")
    keys = "-k QueryRetrieveLevel=STUDY -k StudyInstanceUID -k PatientName"
    OUT.print(f"  findscu -S {titles} {keys} {host} {gateway.port}")


if __name__ == "__main__":
    main()
