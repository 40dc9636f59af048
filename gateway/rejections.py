"""`dicom-gateway rejections`: what rejection notes have hidden or deleted, and how to take one back."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from gateway.accesses import Accesses
from gateway.config import Config
from gateway.console import ERR, OUT, ConfigFile, configuration, fail
from gateway.errors import GatewayError
from gateway.listing import show_object, show_rejections
from gateway.rejection import Rejection, Stage, Tombstones

commands = typer.Typer(
    help="List what rejection notes have hidden or deleted; lift a rejection, beside a running gateway.",
    no_args_is_help=True,
)

_ROWS = 50  # of a table, unless --limit says otherwise

_Instances = Annotated[list[str] | None, typer.Argument(metavar="[INSTANCE]...", help="SOP Instance UIDs.")]
_Archive = Annotated[str, typer.Option("--archive", metavar="NAME", help="Only in this archive.")]
_Study = Annotated[str, typer.Option("--study", metavar="UID", help="Only of this study.")]
_Note = Annotated[str, typer.Option("--note", metavar="UID", help="Only by this note (its SOP Instance UID).")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]


@commands.command("list")
def show(  # noqa: PLR0913 - the options of a command
    instances: _Instances = None,
    *,
    archive: _Archive = "",
    study: _Study = "",
    note: _Note = "",
    stage: Annotated[Stage | None, typer.Option("--state", help="Only those in this state.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help=f"Lines at most, 0 for all; else {_ROWS} in a table.")
    ] = None,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """List rejected instances: hidden, to be deleted, gone (deleted or never there), waiting or refused."""
    with _opened(config) as (_, tombstones):
        chosen = _chosen(tombstones, instances, archive, study, note)
        found = (one for one in chosen if stage is None or one.stage is stage)
        most = _ROWS if limit is None and not as_json else limit
        show_rejections(islice(found, most or None), as_json=as_json)
        if next(found, None) is not None and not as_json:
            OUT.print("There are more: --limit 0 lists them all.")


@commands.command()
def lift(
    instances: _Instances = None,
    *,
    archive: _Archive = "",
    study: _Study = "",
    note: _Note = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """Take rejections back, after asking; exit 1 if there was nothing or the answer was no.

    What is hidden is seen again, what was to be deleted stays, and what was deleted may be stored again.
    """
    if not (instances or study or note):
        raise typer.BadParameter("say which: SOP Instance UIDs, --study or --note")
    with _opened(config) as (settings, tombstones):
        chosen = list(_chosen(tombstones, instances, archive, study, note))
        if tombstones is not None and chosen:
            if not yes:
                ERR.print(_warning(chosen))
                typer.confirm("Take these rejections back?", abort=True, err=True)
            _lift(tombstones, chosen, Accesses(settings))
        if as_json:
            show_object({"lifted": len(chosen)})
        else:
            OUT.print(f"Lifted: {len(chosen):,} rejection{'' if len(chosen) == 1 else 's'}.")
        raise typer.Exit(0 if chosen else 1)


def _lift(tombstones: Tombstones, chosen: list[Rejection], accesses: Accesses) -> None:
    for one in chosen:
        tombstones.forget(one.archive, one.sop_instance)
        accesses.count(one.study)
    accesses.tell("U")


@contextmanager
def _opened(config: Path | None) -> Iterator[tuple[Config, Tombstones | None]]:
    """Open the table of the configuration's spool, if there is one: to open it would make it."""
    settings = configuration(config)
    folder = settings.spool.folder
    try:
        if not (folder / Tombstones.FILE).exists():
            yield settings, None
            return
        with Tombstones(folder) as tombstones:
            yield settings, tombstones
    except GatewayError as error:
        fail(GatewayError(f"{error}. Is this the user that the gateway runs as?"))


def _chosen(
    tombstones: Tombstones | None, instances: list[str] | None, archive: str, study: str, note: str
) -> Iterator[Rejection]:
    if tombstones is None:
        return
    wanted = frozenset(instances or ())
    for one in tombstones.rejections():
        if (
            (not wanted or one.sop_instance in wanted)
            and archive in ("", one.archive)
            and study in ("", one.study)
            and note in ("", one.note)
        ):
            yield one


def _warning(chosen: list[Rejection]) -> str:
    stages = [one.stage for one in chosen]
    parts = (
        (stages.count(Stage.HIDDEN), "hidden, will be seen again"),
        (stages.count(Stage.DELETING), "to be deleted, will stay unless that is under way just now"),
        (stages.count(Stage.GONE), "deleted or never there, may be stored again"),
        (stages.count(Stage.WAITING), "not acted upon yet, will not be"),
        (stages.count(Stage.REFUSED), "not acted upon"),
    )
    return "\n".join(f"{number:,} {words}" for number, words in parts if number)
