"""How the operator's commands show studies and instances: tables for people, one JSON object a line for scripts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from rich.console import Group
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.commitment import State as Phase
from gateway.commitment import Transaction
from gateway.console import OUT
from gateway.outbox import Entry, State, StudyState
from gateway.rejection import Rejection


class Word(StrEnum):
    """Name the states as an operator does."""

    DELIVERED = "delivered"
    WAITING = "waiting"
    SENDING = "sending"
    SET_ASIDE = "set-aside"
    HELD = "held"


WORDS: Mapping[State, Word] = {
    State.DONE: Word.DELIVERED,
    State.TODO: Word.WAITING,
    State.LEASED: Word.SENDING,
    State.SET_ASIDE: Word.SET_ASIDE,
    State.HELD: Word.HELD,
}
STATES: Mapping[Word, State] = {word: state for state, word in WORDS.items()}


def counts(study: StudyState) -> dict[Word, int]:
    """Count the instances of a study by the operator's words."""
    return {
        Word.DELIVERED: study.done,
        Word.WAITING: study.todo,
        Word.SENDING: study.leased,
        Word.SET_ASIDE: study.set_aside,
        Word.HELD: study.held,
    }


def study_object(study: StudyState) -> dict[str, object]:
    """Describe a study for a script; times in ISO 8601, UTC."""
    return {
        "study": study.study,
        "archive": study.archive,
        "received": sum(counts(study).values()),
        **{word.replace("-", "_"): number for word, number in counts(study).items()},
        "bytes": study.bytes,
        "first_received": _iso(study.first),
        "last_received": _iso(study.last),
        "next_attempt": _iso(study.due) if study.due else None,
        "reason": study.reason,
    }


def instance_object(entry: Entry) -> dict[str, object]:
    """Describe an instance for a script; times in ISO 8601, UTC."""
    return {
        "study": entry.study,
        "series": entry.series,
        "instance": entry.sop_instance,
        "sop_class": entry.sop_class,
        "archive": entry.archive,
        "peer": entry.peer,
        "state": WORDS[entry.state],
        "bytes": entry.size,
        "received": _iso(entry.received),
        "attempts": entry.attempts,
        "next_attempt": _iso(entry.due) if entry.state is State.TODO else None,
        "reason": entry.reason,
    }


def show_studies(studies: Iterable[StudyState]) -> None:
    """Print a table of studies: what each is, and how many instances are in which state."""
    table = _table("study", "instances")
    for study in studies:
        of = counts(study)
        about = f"for {study.archive} since {_local(study.first)}, {decimal(study.bytes)}"
        states = [f"{sum(of.values())} received", *(f"{number} {word}" for word, number in of.items() if number)]
        _add(table, study.study, (about, study.reason, _next(study.due)), states)
    _print(table)


def show_instances(entries: Iterable[Entry]) -> None:
    """Print a table of instances: what each is, and its state."""
    table = _table("instance", "state")
    for entry in entries:
        about = f"from {entry.peer} for {entry.archive} at {_local(entry.received)}, {decimal(entry.size)}"
        tries = f"{entry.attempts} tr{'y' if entry.attempts == 1 else 'ies'}"
        later = _next(entry.due) if entry.state is State.TODO else ""
        _add(table, entry.sop_instance, (about, entry.reason, later), (WORDS[entry.state], tries))
    _print(table)


def show_as_json(rows: Iterable[StudyState | Entry]) -> None:
    """Print each row as a line of JSON, as it comes."""
    for row in rows:
        show_object(study_object(row) if isinstance(row, StudyState) else instance_object(row))


_PHASES: Mapping[Phase, str] = {Phase.WAITING: "waiting", Phase.JUDGED: "to be reported"}


def show_commitments(transactions: Iterable[Transaction], *, as_json: bool) -> None:
    """Show open storage commitments, the oldest first."""
    table = _table("Transaction", "State")
    for one in transactions:
        tried = f"tried {one.attempts} times"
        if as_json:
            show_object(
                {
                    "transaction": one.uid,
                    "calling": one.calling,
                    "called": one.called,
                    "archive": one.archive,
                    "state": _PHASES[one.state],
                    "received": _iso(one.received),
                    "instances": len(one.references),
                    "failed": one.failed,
                    "attempts": one.attempts,
                }
            )
            continue
        about = f"{len(one.references)} instances, from {one.calling} to {one.called} for {one.archive}"
        _add(table, one.uid, [about, f"received {_local(one.received)}"], [_PHASES[one.state], tried])
    if table.row_count:
        _print(table)
    elif not as_json:
        OUT.print("No storage commitment is open.")


def show_rejections(rejections: Iterable[Rejection], *, as_json: bool) -> None:
    """Show rejected instances."""
    table = _table("Instance", "State")
    for one in rejections:
        if as_json:
            show_object(
                {
                    "instance": one.sop_instance,
                    "series": one.series,
                    "study": one.study,
                    "archive": one.archive,
                    "state": one.stage,
                    "action": one.action,
                    "title": one.title,
                    "note": one.note,
                    "calling": one.calling,
                    "called": one.called,
                    "received": _iso(one.received),
                    "attempts": one.attempts,
                    "next_attempt": None if one.due is None else _iso(one.due),
                    "readmits": one.readmits,
                }
            )
            continue
        about = (
            f"{one.action} by {one.title}, from {one.calling} to {one.called} for {one.archive}",
            f"note {one.note}",
            f"received {_local(one.received)}",
            "" if one.due is None else _next(one.due),
        )
        failed = (f"failed {one.attempts} times",) if one.attempts else ()
        _add(table, one.sop_instance, about, (one.stage, *failed))
    if table.row_count:
        _print(table)
    elif not as_json:
        OUT.print("No such instance is rejected.")


def show_object(values: Mapping[str, object]) -> None:
    """Print a line of JSON."""
    OUT.file.write(json.dumps(values) + "\n")


def _table(left: str, right: str) -> Table:
    """Make a table that fits into 80 columns with a whole UID, which one wants to copy."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(left, min_width=64, overflow="fold")
    table.add_column(right, overflow="fold")
    return table


def _add(table: Table, uid: str, about: Sequence[str], states: Sequence[str]) -> None:
    left: list[Text | Padding] = [
        _plain(uid, "bold"),
        *(Padding(_plain(line), (0, 0, 0, 2)) for line in about if line),
    ]
    table.add_row(Group(*left), Text("\n".join(states)))


def _plain(text: str, style: str = "") -> Text:
    """Make a text of what came from outside: no markup, no control codes."""
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text), style)


def _print(table: Table) -> None:
    if table.row_count:
        OUT.print(table)


def _next(due: float) -> str:
    return f"next try at {_local(due)}" if due > datetime.now(UTC).timestamp() else ""


def _iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")


def _local(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
