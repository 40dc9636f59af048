"""Show how a query is answered: what the archive is asked, what is matched here and why, and where the time goes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.app import embedded, open_embedded_port
from gateway.config import Archive, Config, Peer
from gateway.connecting import connect
from gateway.dicomweb.client import Client
from gateway.dimse.find import answer_terms
from gateway.dimse.scan import Page, Row, Scan
from gateway.errors import ConfigError, Fault, GatewayError, IdentifierError
from gateway.status import Service, status_of
from gateway.translate.attributes import INTEGERS, SINGLE_TEXT_VRS, TEXT_VRS, Attribute, known_vrs, read_tag
from gateway.translate.dicom_json import to_element
from gateway.translate.matching import Key, keyword_of, read_keys
from gateway.translate.profiles import Profile
from gateway.translate.responses import Responder
from gateway.translate.search import Model, Negotiated, Search, plan, project

_SHOWN = 10  # results and requests of a kind
_EXPLICIT = "1.2.840.10008.1.2.1"
_OWN = ("QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle", "InstanceAvailability")
_UID = re.compile(r"(studies|series)/[0-9.]+")
_ITEM = re.compile(r"\[\d+\]")


class Root(StrEnum):
    """Name an information model on the command line."""

    STUDY = "study"
    PATIENT = "patient"
    PATIENT_STUDY = "patient-study"

    @property
    def model(self) -> Model:
        """Give the model."""
        models = {Root.STUDY: Model.STUDY_ROOT, Root.PATIENT: Model.PATIENT_ROOT}
        return models.get(self, Model.PATIENT_STUDY_ONLY)


@dataclass(frozen=True, slots=True)
class Question:
    """Hold a query as the command line has it; `keys` are KEYWORD=VALUE, or a keyword alone to have it returned."""

    keys: Sequence[str]
    level: str = ""
    title: str = ""
    peer: str = ""
    root: Root = Root.STUDY
    relational: bool = False


@dataclass(slots=True)
class _Course:
    """Collect what running the search took."""

    pages: list[Page] = field(default_factory=list)
    matches: int = 0
    shown: list[Row] = field(default_factory=list)
    encoded: float = 0.0


def run(out: Console, config: Config, question: Question) -> bool:
    """Print the explanation and say whether the query would end with success.

    Raises ConfigError when the question names what the configuration does not have.
    """
    title = question.title or next(iter(config.ae_titles))
    if title not in config.ae_titles:
        raise ConfigError("explain", (Fault("--title", f"{title} is not one of ae_titles"),))
    if question.peer and question.peer not in config.peers:
        raise ConfigError("explain", (Fault("--peer", f"{question.peer} is not one of peers"),))
    peer = config.peers.get(question.peer, Peer())
    name = config.ae_titles[title].archive
    with _client(config, name) as (client, max_scanned):
        out.print(Text(f"{title} stands for archive {name}, a service of profile {client.profile.name}."))
        try:
            _answer(out, client, max_scanned, question, title, peer)
        except GatewayError as error:
            status = status_of(error, Service.FIND)
            out.print(Text(f"The query fails with {status.code:04X}H: {error}", "red"))
            return False
    return True


def _answer(out: Console, client: Client, max_scanned: int, question: Question, title: str, peer: Peer) -> None:
    begun = perf_counter()
    identifier = read_identifier(question.keys, question.level or peer.default_level or "STUDY")
    negotiated = Negotiated(relational=question.relational)
    search = plan(identifier, question.root.model, client.profile, negotiated, lenient=peer.lenient)
    planned = perf_counter() - begun
    out.print(_keys_table(read_keys(identifier, negotiated), search, client.profile))
    _print_requests(out, client, search)
    scan = Scan(client, search, max_scanned, (course := _Course()).pages.append)
    terms = answer_terms(peer, identifier)
    responder = Responder(search, retrieve_aet=title, transfer_syntax=_EXPLICIT, terms=terms)
    try:
        _run(scan, responder, course)
    finally:
        out.print(_results_table(search, course.shown, title))
        out.print(_times_table(planned, course))
    pending = "FF01H, for the keys that cannot be matched" if search.unsupported_keys else "FF00H"
    out.print(
        Text(
            f"matches: {course.matches:,}, with status {pending}, then 0000H; "
            f"{scan.entries:,} entries were read, at most {max_scanned:,} may be."
        )
    )
    if lost := scan.malformed + responder.malformed:
        out.print(Text(f"{lost:,} attributes of the archive could not be read.", "yellow"))


@contextmanager
def _client(config: Config, name: str) -> Iterator[tuple[Client, int]]:
    """Connect to an archive and give its client with `max_scanned`; the embedded one is started if it is not up."""
    with ExitStack() as stack:
        archive = config.archives.get(name) or _embedded(stack, config)
        yield stack.enter_context(connect(name, archive)), archive.max_scanned


def _embedded(stack: ExitStack, config: Config) -> Archive:
    settings = config.embedded
    folder = settings.folder or config.spool.folder / "archive"
    if not folder.exists():
        raise ConfigError("explain", (Fault("embedded", f"there is no archive in {folder} yet"),))
    try:
        return stack.enter_context(embedded(config, stack.enter_context(open_embedded_port(config))))
    except ConfigError as error:  # a running gateway has it
        if not settings.port:
            fault = Fault("embedded.port", "is 0: set a port, so that the archive of a running gateway can be asked")
            raise ConfigError("explain", (fault, *error.faults)) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}/v2"
    return Archive(url=url, profile="embedded", max_scanned=settings.max_scanned)


def read_identifier(keys: Sequence[str], level: str) -> Dataset:
    """Build an identifier from KEYWORD=VALUE texts; items are reached by dots. Raises IdentifierError."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for key in keys:
        path, _, value = key.partition("=")
        *sequences, last = _ITEM.sub("", path).split(".")
        dataset = identifier
        for name in sequences:
            tag, vr = _tag(name)
            if vr != "SQ":
                raise IdentifierError(name, "is not a sequence")
            if tag not in dataset:
                dataset[tag] = to_element(tag, Attribute("SQ", [Dataset()]))
            dataset = dataset[tag].value[0]
        tag, vr = _tag(last)
        dataset[tag] = to_element(tag, Attribute(vr, _values(last, vr, value)))
    return identifier


def _tag(name: str) -> tuple[int, str]:
    tag = (name and tag_for_keyword(name)) or read_tag(re.sub(r"[(),]", "", name))
    if tag is None:
        raise IdentifierError(name, "is no keyword and no tag of the data dictionary")
    return tag, (known_vrs(tag) or ("UN",))[0]


def _values(name: str, vr: str, value: str) -> list[Any]:
    if not value or vr == "SQ":
        return []
    values = [value] if vr in SINGLE_TEXT_VRS else value.split("\\")
    if vr in TEXT_VRS:
        return values
    try:
        return [int(one) if vr in INTEGERS else float(one) for one in values]
    except ValueError as error:
        raise IdentifierError(name, f"not a value of VR {vr}") from error


def _keys_table(keys: Sequence[Key], search: Search, profile: Profile) -> Table:
    """Say of each key what becomes of it."""
    table = Table("key", "value", "sent to the archive", "matched here", "why")
    sent = _sent(search)
    kinds = {condition.keyword: condition.kind for condition in search.conditions}
    for key in keys:
        if key.keyword not in _OWN:
            value = "\\".join(map(str, key.values)) or ("(items)" if key.item_conditions else "")
            cells = (key.keyword, value, " or ".join(sent.get(key.keyword, ())), kinds.get(key.keyword, ""))
            table.add_row(*map(Text, cells), Text(_why(key, search, profile, sent)))
    return table


def _sent(search: Search) -> Mapping[str, list[str]]:
    """Give the values that go to the archive by keyword, those in the path included."""
    sent: dict[str, dict[str, None]] = {}
    for request in search.requests:
        steps = request.resource.split("/")
        named = [*request.parameters, *zip(("StudyInstanceUID", "SeriesInstanceUID"), steps[1::2], strict=False)]
        for keyword, value in named:
            sent.setdefault(keyword, {})[value] = None
    return {keyword: list(values) for keyword, values in sent.items()}


def _why(key: Key, search: Search, profile: Profile, sent: Mapping[str, object]) -> str:
    """Give the first reason that holds."""
    computed = {way.keyword: way.scope.resource for way in search.computations}
    filters = profile.filters
    is_filter = filters is None or any(key.keyword in keywords for keywords in filters.values())
    reasons = (
        (
            key.keyword in search.unsupported_keys,
            "cannot be matched at this level or on this archive: the pending status is FF01",
        ),
        (key.keyword in computed, f"computed for each match by a search of {computed.get(key.keyword)}"),
        (
            any(blank.tag == key.tag for blank in search.blank_keys),
            "is of a lower level: returned without value",
        ),
        (key.is_universal, "matches everything: returned"),
        (key.keyword in sent, "the archive may answer more than what matches"),
        (key.vr == "PN", f"archives of profile {profile.name} compare names in a way of their own"),
        (key.vr == "SQ" or not is_filter, f"archives of profile {profile.name} have no such filter"),
        (True, f"archives of profile {profile.name} cannot be sent it here without losing matches"),
    )
    return next(text for holds, text in reasons if holds)


def _print_requests(out: Console, client: Client, search: Search) -> None:
    for request in search.requests[:_SHOWN]:
        out.print(Text(f"GET {client.address(request.resource, request.parameters)}", "cyan"))
    if len(search.requests) > _SHOWN:
        out.print(Text(f"and {len(search.requests) - _SHOWN} more, for other values"))


def _run(scan: Scan, responder: Responder, course: _Course) -> None:
    for page in scan.pages():
        begun = perf_counter()
        for row in page:
            responder.encode(row)
        course.encoded += perf_counter() - begun
        course.matches += len(page)
        course.shown += page[: _SHOWN - len(course.shown)]


def _results_table(search: Search, rows: Sequence[Row], title: str) -> Table:
    keys = [key for key in dict.fromkeys(search.return_keys) if key.vr != "SQ"]
    columns = list(dict.fromkeys(keyword_of(key.tag) for key in keys))
    table = Table(*columns, title=f"first results: {len(rows)}" if rows else "no result")
    for row in rows:
        answer = project(search, row, retrieve_aet=title)
        table.add_row(*(Text(_shown(answer, column)) for column in columns))
    return table


def _shown(answer: Dataset, column: str) -> str:
    element = answer.get(column) if column.isalnum() else None
    if element is None:
        return ""
    return "\\".join(map(str, element)) if isinstance(element, (list, tuple)) else str(element)


def _times_table(planned: float, course: _Course) -> Table:
    table = Table("step", "pages", "entries", "matching", "seconds", title="the time each step took")
    table.add_row("plan", "", "", "", f"{planned:.4f}")
    searches: dict[str, list[Page]] = {}
    for page in course.pages:
        searches.setdefault(_UID.sub(r"\1/(UID)", page.request.resource), []).append(page)
    for resource, pages in searches.items():
        totals = (len(pages), sum(page.entries for page in pages), sum(page.matching for page in pages))
        table.add_row(Text(f"search {resource}"), *map(str, totals), f"{sum(page.waited for page in pages):.4f}")
    table.add_row("match here", "", "", str(course.matches), f"{sum(page.worked for page in course.pages):.4f}")
    table.add_row("encode", "", "", "", f"{course.encoded:.4f}")
    return table
