"""`dicom-gateway queue`: what waits for an archive, and what an operator can do about it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from gateway.accesses import Accesses
from gateway.app import outbox_folder
from gateway.commitment import Register, Transaction
from gateway.commitment import State as Phase
from gateway.config import EMBEDDED, Config
from gateway.console import ERR, OUT, ConfigFile, configuration, fail
from gateway.errors import ConfigError, GatewayError
from gateway.listing import (
    STATES,
    WORDS,
    Word,
    counts,
    show_as_json,
    show_commitments,
    show_instances,
    show_object,
    show_studies,
)
from gateway.outbox import FILE_LOST, Entry, Ledger, State, Statistics, StudyState, export

commands = typer.Typer(
    help="List what waits for an archive; retry, hold, release, export or discard it, beside a running gateway.",
    no_args_is_help=True,
)

_ROWS = 50  # of a table, unless --limit says otherwise
_AT_ONCE = 1000  # instances that are discarded in one call

_Studies = Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Study Instance UIDs.")]
_Archive = Annotated[str, typer.Option("--archive", metavar="NAME", help="Only what is for this archive.")]
_All = Annotated[bool, typer.Option("--all", help="Everything that waits in the queue.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]
_State = Annotated[Word | None, typer.Option("--state", help="Only instances in this state.")]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Say what a command is for; "" stands for every study or archive."""

    studies: tuple[str, ...]
    archive: str
    state: State | None = None

    def entries(self, ledger: Ledger) -> Iterator[Entry]:
        """List the chosen instances that were not delivered."""
        found = chain.from_iterable(ledger.entries(study, self.archive, self.state) for study in self.studies)
        return (entry for entry in found if entry.state is not State.DONE)


@commands.command("list")
def show(  # noqa: PLR0913 - the options of a command
    studies: _Studies = None,
    *,
    archive: _Archive = "",
    state: Annotated[Word | None, typer.Option("--state", help="Only with instances in this state.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delivered studies too, as far as remembered.")] = False,
    instances: Annotated[bool, typer.Option("--instances", help="A line for each instance.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help=f"Lines at most, 0 for all; else {_ROWS} in a table.")
    ] = None,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """List by study what was received, delivered, waits or is set aside, and why; the oldest first.

    A study that is delivered is listed when it is named, or with --all.
    """
    with _opened(config) as (settings, ledger):
        _check_archive(archive, settings, ledger)
        wanted = STATES[state] if state else None
        delivered = everything or bool(studies) or state is Word.DELIVERED
        rows: Iterator[StudyState | Entry]
        if instances:
            found = chain.from_iterable(ledger.entries(study, archive, wanted) for study in studies or ("",))
            rows = (entry for entry in found if delivered or entry.state is not State.DONE)
        else:
            sums = chain.from_iterable(ledger.studies(study, archive) for study in studies or ("",))
            listed = (study for study in sums if _is_listed(study, state, delivered=delivered))
            oldest_first = sorted(listed, key=lambda study: study.first)
            rows = iter(oldest_first)
        if as_json:
            show_as_json(islice(rows, limit or None))
            return
        most = _ROWS if limit is None else limit
        shown = list(islice(rows, most or None))
        show_studies(row for row in shown if isinstance(row, StudyState))
        show_instances(row for row in shown if isinstance(row, Entry))
        if next(rows, None) is not None:
            OUT.print("There are more: --limit 0 lists them all.")
        _show_whole(ledger, settings)


@commands.command()
def retry(
    studies: _Studies = None,
    *,
    archive: _Archive = "",
    everything: _All = False,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """Try again now what is set aside or waits for its next try; exit 1 if there was nothing."""
    with _opened(config) as (settings, ledger):
        chosen = _choose(studies, archive, settings, ledger, everything=everything)
        retried = sum(ledger.retry_now(study, archive) for study in chosen.studies)
        aside = _Chosen(chosen.studies, archive, State.SET_ASIDE).entries(ledger)
        lost = sum(entry.reason == FILE_LOST for entry in aside)
        if as_json:
            show_object({"retried": retried, "file_lost": lost})
        else:
            OUT.print(f"Tried again now: {_instances(retried)}.")
            if lost:
                OUT.print(f"Without their file: {_instances(lost)}. Have them sent again, or discard them.")
        raise typer.Exit(0 if retried else 1)


@commands.command()
def hold(
    studies: _Studies = None,
    *,
    archive: _Archive = "",
    everything: _All = False,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """Keep studies, or all that is for an archive, from being delivered: what is there and what comes."""
    with _opened(config) as (settings, ledger):
        chosen = _choose(studies, archive, settings, ledger, everything=everything)
        held = sum(ledger.hold(study, archive) for study in chosen.studies)
        sending = sum(1 for _ in _Chosen(chosen.studies, archive, State.LEASED).entries(ledger))
        if as_json:
            show_object({"held": held, "sending": sending})
            return
        OUT.print(f"Held: {_instances(held)}, and what comes, until it is released.")
        if sending:
            OUT.print(f"Under way just now: {_instances(sending)}; these may still arrive.")


@commands.command()
def release(
    studies: _Studies = None,
    *,
    archive: _Archive = "",
    everything: _All = False,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """Let go on what is held; exit 1 if it is still held by a hold on more."""
    with _opened(config) as (settings, ledger):
        chosen = _choose(studies, archive, settings, ledger, everything=everything)
        released = sum(ledger.release(study, archive) for study in chosen.studies)
        held = sum(1 for _ in _Chosen(chosen.studies, archive, State.HELD).entries(ledger))
        if as_json:
            show_object({"released": released, "held": held})
        else:
            OUT.print(f"Released: {_instances(released)}.")
            if held:
                OUT.print(f"Still held: {_instances(held)}, by a wider hold: {_describe_holds(ledger)}.")
        raise typer.Exit(1 if held else 0)


@commands.command("export")
def export_files(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; it is made.")],
    studies: _Studies = None,
    *,
    archive: _Archive = "",
    state: _State = None,
    everything: _All = False,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """Copy the Part 10 files to FOLDER/STUDY/INSTANCE.dcm; the queue stays as it is. Exit 1 if any was gone.

    The files hold patient data. What was delivered is not in the spool any more.
    """
    with _opened(config) as (settings, ledger):
        chosen = _choose(studies, archive, settings, ledger, state, everything=everything)
        try:
            accesses = Accesses(settings)
            result = export(accesses.counting(chosen.entries(ledger)), folder)
            accesses.tell("R")
        except GatewayError as error:
            fail(error)
        if as_json:
            show_object({**asdict(result), "folder": str(folder)})
        else:
            OUT.print(f"Written to {folder}: {_instances(result.written)}.", markup=False)
            if result.already_there:
                OUT.print(f"There already: {_instances(result.already_there)}.")
            if result.gone:
                OUT.print(f"Without a file: {_instances(result.gone)}, delivered meanwhile or lost.")
        raise typer.Exit(0 if result.written + result.already_there and not result.gone else 1)


@commands.command()
def discard(
    studies: _Studies = None,
    *,
    archive: _Archive = "",
    state: _State = None,
    everything: _All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
    config: ConfigFile = None,
) -> None:
    """Delete undelivered instances for good, after asking; exit 1 if there was nothing or the answer was no.

    What was delivered, or arrives after the question, is not touched.
    """
    with _opened(config) as (settings, ledger):
        chosen = _choose(studies, archive, settings, ledger, state, everything=everything)
        ids, size, of = [], 0, set()
        accesses = Accesses(settings)
        for entry in accesses.counting(chosen.entries(ledger)):
            ids.append(entry.id)
            size += entry.size
            of.add((entry.study, entry.archive))
        if ids and not yes:
            ERR.print(
                f"{_instances(len(ids))} of {len(of)} {'study' if len(of) == 1 else 'studies'} ({size:,} bytes) "
                "will be deleted. The archive will not get them, and the senders believe that it has them."
            )
            typer.confirm("Delete them for good?", abort=True, err=True)
        discarded = sum(ledger.discard(ids=ids[at : at + _AT_ONCE]) for at in range(0, len(ids), _AT_ONCE))
        if discarded:
            accesses.tell("D")
        if as_json:
            show_object({"discarded": discarded})
        else:
            OUT.print(f"Discarded: {_instances(discarded)}.")
        raise typer.Exit(0 if discarded else 1)


@commands.command()
def commitments(*, as_json: _Json = False, config: ConfigFile = None) -> None:
    """List the storage commitments that wait for the outbox and the archive, or for their report to be taken."""
    found: list[Transaction] = []
    with _opened(config) as (settings, _):  # where no gateway has run, "none" would be no answer
        if (settings.spool.folder / Register.FILE).exists():  # to open it would make one
            with Register(settings.spool.folder) as register:
                found = [one for one in register.transactions() if one.state is not Phase.ENDED]
    show_commitments(found, as_json=as_json)


@contextmanager
def _opened(config: Path | None) -> Iterator[tuple[Config, Ledger]]:
    """Open the outbox of the configuration; what fails there ends the command with code 2."""
    settings = configuration(config)
    folder = outbox_folder(settings)
    try:
        with Ledger(folder) as ledger:
            yield settings, ledger
    except ConfigError as error:
        fail(error)
    except GatewayError as error:
        fail(GatewayError(f"the outbox in {folder}: {error}. Is this the user that the gateway runs as?"))


def _choose(
    studies: list[str] | None,
    archive: str,
    settings: Config,
    ledger: Ledger,
    word: Word | None = None,
    *,
    everything: bool,
) -> _Chosen:
    if studies and everything:
        raise typer.BadParameter("either studies or --all")
    if not (studies or archive or word or everything):
        raise typer.BadParameter("say what: study UIDs, --archive or --all")
    _check_archive(archive, settings, ledger)
    return _Chosen(tuple(dict.fromkeys(studies or ("",))), archive, STATES[word] if word else None)


def _check_archive(archive: str, settings: Config, ledger: Ledger) -> None:
    """Refuse an unknown name: a typing error must not look like an empty queue."""
    if not archive or archive == EMBEDDED or archive in settings.archives:
        return
    known = {total.archive for total in ledger.statistics().totals} | {of for _, of in ledger.holds()}
    if archive not in known:
        names = ", ".join(sorted({*known, *settings.archives, EMBEDDED} - {""}))
        raise typer.BadParameter(f"no archive {archive!r}; there are: {names}", param_hint="--archive")


def _is_listed(study: StudyState, word: Word | None, *, delivered: bool) -> bool:
    of = counts(study)
    if word is not None:
        return bool(of[word])
    return delivered or any(number for name, number in of.items() if name is not Word.DELIVERED)


def _show_whole(ledger: Ledger, settings: Config) -> None:
    statistics = ledger.statistics()
    OUT.print(f"In the queue: {_sum(statistics)}.")
    waiting = {total.archive for total in statistics.totals if total.state is not State.DONE}
    if unknown := sorted(waiting - {EMBEDDED, *settings.archives}):
        OUT.print(f"Not in the configuration, so nothing goes there: {', '.join(unknown)}.", markup=False)
    if holds := _describe_holds(ledger):
        OUT.print(f"To be held: {holds}.")
    if not ledger.is_attended():
        OUT.print("No gateway has this queue open: nothing is being delivered.")


def _sum(statistics: Statistics) -> str:
    entries = Counter(dict.fromkeys(Word, 0))
    for total in statistics.totals:
        entries[WORDS[total.state]] += total.entries
    parts = [f"{number:,} {word}" for word, number in entries.items() if number and word is not Word.DELIVERED]
    return f"{', '.join(parts)} ({statistics.bytes:,} bytes)" if parts else "nothing"


def _describe_holds(ledger: Ledger) -> str:
    return ", ".join(
        f"{f'study {study}' if study else 'every study'} for {archive or 'every archive'}"
        for study, archive in islice(ledger.holds(), 10)
    )


def _instances(count: int) -> str:
    return f"{count:,} instance{'' if count == 1 else 's'}"
