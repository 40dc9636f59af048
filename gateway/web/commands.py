"""`dicom-gateway web store|retrieve|metadata|frames|search|delete`: what the client does, from the shell."""

import secrets
import time
from collections import Counter
from contextlib import closing
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.dicomweb import Client, Instance, State, Uploaded
from gateway.translate.generate import shapes
from gateway.translate.part10 import read_file_meta
from gateway.web import show
from gateway.web.archives import on_archive
from gateway.web.exits import SOME_FAILED, WRONG_CALL, explained
from gateway.web.sources import files, frame_numbers
from gateway.web.templates import Template, TemplateError

web = typer.Typer(
    help="Store, retrieve, search and delete in a DICOMweb archive. Exit codes: 0 all done, 1 some were not, 2 wrong "
    "call or configuration, 3 not found, 4 archive in trouble (try later), 5 sign-in refused, 6 request refused, "
    "7 file or disk, 130 interrupted.",
    no_args_is_help=True,
)

_INSTANCE_FILE = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
_FRAME_FILE = "{SOPInstanceUID}-{frame}.bin"
_FRAME_FIELDS = frozenset(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "frame"))
_FRAMES_A_REQUEST = 10  # each is in memory

Study = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID")]
Series = Annotated[str, typer.Argument(metavar="[SERIES]", help="Series Instance UID")]
InstanceUid = Annotated[str, typer.Argument(metavar="[INSTANCE]", help="SOP Instance UID")]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on the standard output.")]


class Level(StrEnum):
    """Name what is searched."""

    STUDIES = "studies"
    SERIES = "series"
    INSTANCES = "instances"


@web.command()
@on_archive
def store(
    connected: Client,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns such as 'a/**/*.dcm'")
    ],
    study: Annotated[str, typer.Option(help="Refuse instances of any other study (its UID).")] = "",
    send_all: Annotated[bool, typer.Option("--all", help="Send what the archive has already, too.")] = False,
    unchanged: Annotated[
        bool, typer.Option("--unchanged", help="Send files as they are, whatever the archive's profile asks for.")
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests at the same time.")] = 4,
    as_json: Json = False,
) -> None:
    """Store files; what the archive has already is skipped, so that an interrupted run goes on where it ended.

    What the archive's profile asks for is done to what is sent, and said: of Implicit VR Explicit VR Little Endian is
    made, an absent Patient ID is added empty. With --json a line for each file: file, state, study, series, instance,
    size, reason, problem, changes.
    """
    err, counts, changes = show.console(stderr=True), Counter[State](), Counter[str]()
    chosen, nothing = files(paths)
    for name in nothing:
        err.print(f"{name}: there is no such file, folder or match", markup=False)
    begun, bar = time.perf_counter(), show.progress(err, of_bytes=True)
    task = bar.add_task("storing", total=sum(path.stat().st_size for path in chosen))
    advance = partial(bar.advance, task)
    told = connected.upload(
        chosen, study=study, skip_present=not send_all, convert=not unchanged, progress=advance, parallel=parallel
    )
    try:
        with bar, closing(told):
            for one in told:
                counts[one.state] += 1
                changes.update(one.changes)
                if one.state is State.PRESENT:
                    bar.advance(task, one.size)
                if as_json:
                    _told(one)
                elif one.problem:
                    bar.console.print(f"{one.source!s}: {one.state}: {one.problem}", markup=False)
    except KeyboardInterrupt:
        err.print("The same command goes on where this one ends.")
        raise
    finally:
        if not as_json and counts:
            show.console().print(_summary(counts, time.perf_counter() - begun))
            _tell_changes(changes, connected.profile.name)
    done = counts.total() == counts[State.STORED] + counts[State.PRESENT]
    raise typer.Exit(WRONG_CALL if nothing else 0 if done else SOME_FAILED)


@web.command()
@on_archive
def retrieve(
    connected: Client,
    study: Study,
    series: Series = "",
    instance: InstanceUid = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help=f"Folder, file or template of keywords, such as '{_INSTANCE_FILE}'")
    ] = ".",
    transfer_syntax: Annotated[str, typer.Option(help="UID to have it converted to; * is as stored.")] = "*",
    as_json: Json = False,
) -> None:
    """Retrieve a study, a series or an instance and save it; a file appears when it is complete.

    With --json a line for each instance: file, instance, transfer_syntax, size.
    """
    taken, size, begun = set[Path](), 0, time.perf_counter()
    template, bar = _template(output, single=bool(instance)), show.progress(show.console(stderr=True), of_bytes=False)
    total = None if bar.disable else _expected(connected, study, series, instance)
    task = bar.add_task("retrieving", total=total)
    with bar, connected.retrieve(study, series, instance, transfer_syntax=transfer_syntax) as instances:
        for one in instances:
            path = _saved(one, template, taken)
            size += path.stat().st_size
            bar.advance(task)
            if as_json:
                _described(path)
    if not as_json:
        seconds = time.perf_counter() - begun
        show.console().print(f"{len(taken)} instances, {size / 1e6:.1f} MB, {seconds:.1f} s, in {template.folder}")


@web.command()
@on_archive
def metadata(
    connected: Client,
    study: Study,
    series: Series = "",
    instance: InstanceUid = "",
    as_json: Json = False,
) -> None:
    """Show the attributes of a study, a series or an instance, without pixels; --json gives the archive's own."""
    models = connected.metadata(study, series, instance)
    if as_json:
        show.array(models)
    elif instance:
        for model in models:
            show.console().print(show.elements(model))
    else:
        show.console().print(show.table(models, (*show.COLUMNS["instances"], "Modality", "Rows", "Columns")))


@web.command()
@on_archive
def frames(
    connected: Client,
    study: Study,
    series: Annotated[str, typer.Argument(metavar="SERIES", help="Series Instance UID")],
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="SOP Instance UID")],
    numbers: Annotated[str, typer.Argument(metavar="FRAMES", help="Numbers from 1, such as 1,4-6")],
    output: Annotated[str, typer.Option("--output", "-o", help="Template with {frame}")] = _FRAME_FILE,
    as_json: Json = False,
) -> None:
    """Retrieve frames as they are stored and save each as a file of its bare bytes.

    With --json a line for each frame: file, frame, size.
    """
    template, wanted = _frame_template(output), frame_numbers(numbers)
    template.folder.mkdir(parents=True, exist_ok=True)
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": instance}
    for start in range(0, len(wanted), _FRAMES_A_REQUEST):
        some = wanted[start : start + _FRAMES_A_REQUEST]
        for number, content in zip(some, connected.frames(study, series, instance, some), strict=True):
            path = template.path({**uids, "frame": str(number)})
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if as_json:
                show.line(file=str(path), frame=number, size=len(content))
            else:
                show.console().print(f"{path}: {len(content)} bytes", markup=False)


@web.command()
@on_archive
def search(
    connected: Client,
    level: Annotated[Level, typer.Argument(help="What to search")],
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEYWORD=VALUE...]", help="What must match, as the archive matches")
    ] = None,
    *,
    study: Annotated[str, typer.Option(help="Search within this study (its UID).")] = "",
    series: Annotated[str, typer.Option(help="Search within this series of the study.")] = "",
    field: Annotated[list[str] | None, typer.Option(help="A further attribute to show, by its keyword.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show at most so many; 0: all.")] = 0,
    as_json: Json = False,
) -> None:
    """Search studies, series or instances, to the last page; no match is no error."""
    resource = _resource(level, study, series)
    columns = (*show.COLUMNS[level], *(field or ()))
    included = ",".join((*show.COLUMNS[level], *(field or ())))
    parameters = [_key(one) for one in keys or ()]
    found = connected.matches(resource, [*parameters, ("includefield", included)])
    limited = islice(found, limit) if limit else found
    if as_json:
        show.array(limited)
    else:
        show.console().print(show.table(limited, columns))


@web.command()
@on_archive
def delete(
    connected: Client,
    study: Study,
    series: Series = "",
    instance: InstanceUid = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a study, a series or an instance from the archive, for good; asks first."""
    what = f"instance {instance}" if instance else f"series {series}" if series else f"study {study}"
    if not yes:
        count = _expected(connected, study, series, instance)
        size = "" if instance or count is None else f" with {count} instances"
        typer.confirm(f"Delete {what}{size} from archive {connected.name} for good?", abort=True, err=True)
    connected.delete(study, series, instance)
    show.console().print(f"deleted: {what}")


@web.command()
def samples(folder: Annotated[Path, typer.Argument(help="Where to write them")]) -> None:
    """Write the three images of docs/tutorial.md: blue-circle, red-triangle and green-square."""
    with explained(show.console(stderr=True)):
        for made in shapes(folder):
            show.console().print(str(made.path), markup=False)


def _told(one: Uploaded) -> None:
    show.line(
        file=str(one.source),
        state=str(one.state),
        study=one.study,
        series=one.series,
        instance=one.sop_instance,
        size=one.size,
        reason=one.reason,
        problem=one.problem,
        changes=one.changes,
    )


def _summary(counts: Counter[State], seconds: float) -> Table:
    words = {State.PRESENT: "skipped: the archive has it already"}
    made = Table("files", "what became of them", title=f"{seconds:.1f} s")
    for state in State:
        if counts[state]:
            made.add_row(str(counts[state]), words.get(state, str(state)))
    return made


def _tell_changes(changes: Counter[str], profile: str) -> None:
    for change, number in changes.items():
        show.console().print(f"{number} of them: {change}, as profile {profile} asks for")


def _resource(level: Level, study: str, series: str) -> str:
    """Name what is searched (PS3.18 Table 10.6.1-1); what there is not is a wrong call."""
    if series and not study:
        raise typer.BadParameter("--series needs the --study that it belongs to")
    if study and level is Level.STUDIES:
        raise typer.BadParameter("studies are searched without --study; say StudyInstanceUID=UID")
    if series and level is Level.SERIES:
        raise typer.BadParameter("series are searched without --series; say SeriesInstanceUID=UID")
    return "/".join([*(("studies", study) if study else ()), *(("series", series) if series else ()), level])


def _key(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not KEYWORD=VALUE, such as PatientID=ID1")
    return key, value


def _template(output: str, *, single: bool) -> Template:
    """Read what --output says: a template, one file, or a folder for files named by their UIDs."""
    if "{" in output or (single and not output.endswith("/") and not Path(output).is_dir()):
        return Template(output)
    return Template(f"{output.rstrip('/') or '/'}/{_INSTANCE_FILE}")


def _frame_template(output: str) -> Template:
    template = Template(output, _FRAME_FIELDS)
    if "frame" not in template.fields or not _FRAME_FIELDS.issuperset(template.fields):
        raise TemplateError(f"frames are named by {{frame}}, and by {', '.join(sorted(_FRAME_FIELDS - {'frame'}))}")
    return template


def _saved(one: Instance, template: Template, taken: set[Path]) -> Path:
    """Save an instance beside its place, look what it is, and put it there."""
    template.folder.mkdir(parents=True, exist_ok=True)
    path = one.save(template.folder / f".{secrets.token_hex(8)}.part")
    try:
        target = template.path_of(path)
        if target in taken:
            raise TemplateError(f"{target} would be two instances; add {{SOPInstanceUID}} to --output")
        taken.add(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        return path.replace(target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _described(path: Path) -> None:
    with path.open("rb") as file:
        meta = read_file_meta(file)
    size = path.stat().st_size
    show.line(file=str(path), instance=meta.sop_instance, transfer_syntax=meta.transfer_syntax, size=size)


def _expected(connected: Client, study: str, series: str, instance: str) -> int | None:
    """Ask how many instances there are, None when the archive does not count."""
    if instance:
        return 1
    if series:
        keyword = "NumberOfSeriesRelatedInstances"
        found = connected.series(study, SeriesInstanceUID=series, fields=[keyword])
    else:
        keyword = "NumberOfStudyRelatedInstances"
        found = connected.studies(StudyInstanceUID=study, fields=[keyword])
    count = next((one.get(keyword) for one in found), None)
    return None if count is None else int(count)
