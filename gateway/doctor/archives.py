"""Examine an archive through its own answers: what it can and cannot do, and which profile fits that."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config import Archive
from gateway.dicomweb import Client
from gateway.doctor.finding import Finding, fault, note, ok
from gateway.errors import (
    ArchiveError,
    GatewayError,
    NotFound,
    RequestRefused,
    SignInRefused,
    TooLarge,
)
from gateway.translate.generate import Generated, ct_series
from gateway.translate.profiles import PROFILES, Profile

TEST_PATIENT = "DICOM-GATEWAY-TEST"

_STUDY, _PATIENT = "0020000D", "00100020"
_SERIES_COUNT = "00201206"
_LARGE_PAGE = 1000
_SKEW = 120.0  # seconds between two clocks that are worth a word

ADVICE: Mapping[type[GatewayError], str] = {
    SignInRefused: "correct archives.*.auth, or the rights of that identity",
    NotFound: "correct archives.*.url: it is what comes before /studies, with the version where there is one",
    RequestRefused: "see whether archives.*.url is a DICOMweb service and the profile is right",
    TooLarge: "see what the archive, or a proxy before it, allows",
    GatewayError: "see whether the archive is running, and what its log says",
}

# what can be seen from outside -> what a profile says of it
FLAGS: Mapping[str, Callable[[Profile], bool]] = {
    "wildcards": lambda profile: profile.wildcard,
    "lists of UIDs": lambda profile: profile.uid_list,
    "searches across studies": lambda profile: profile.flat_search,
    "pages of 1000": lambda profile: profile.max_limit >= _LARGE_PAGE,
    "number of series": lambda profile: "NumberOfStudyRelatedSeries" in profile.computed,
    "deletion": lambda profile: profile.delete,
}


def examine(client: Client, archive: Archive, *, test_object: bool) -> Iterator[Finding]:
    """Search, and where it is allowed store, retrieve and delete a marked object; propose the profile that fits."""
    about, flags = f"archive {client.name}", dict[str, bool]()
    try:
        yield from _clock(client, about)
        found = next(client.matches("studies", [("includefield", _PATIENT)]), None)
        yield ok(about, "answers searches" if found else "answers searches; it is empty")
        if test_object:
            yield from _with_test_object(client, about, flags)
        elif found:
            flags |= _seen(client, found)
    except GatewayError as error:
        yield fault(about, str(error), next(ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE))
        return
    if not flags:
        yield note(
            about, "what it can do was not seen", "run doctor with --test-object, if a test study may be stored"
        )
        return
    yield ok(about, ", ".join(f"{name}: {'yes' if has else 'no'}" for name, has in flags.items()))
    yield _proposed(about, archive.profile, flags)


def _clock(client: Client, about: str) -> Iterator[Finding]:
    skew = client.clock_skew()
    if skew is not None and abs(skew) > _SKEW:
        advice = "let both follow a time server; sign-ins and time stamps depend on it"
        yield fault(about, f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}", advice)


def _with_test_object(client: Client, about: str, flags: dict[str, bool]) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="dicom-gateway-") as folder:
        marked = {"PatientID": TEST_PATIENT, "PatientName": TEST_PATIENT, "StudyDescription": TEST_PATIENT}
        made = list(ct_series(Path(folder), TEST_PATIENT, count=2, rows=16, columns=16, attributes=marked))
        try:
            for told in client.upload([one.path for one in made]):
                if not told.ok:
                    raise RequestRefused(client.name, f"refuses a plain CT image: {told.problem}")
            yield ok(about, f"stores; the test study's Patient ID is {TEST_PATIENT}")
            yield from _retrieved(client, about, made)
            found = next(client.matches("studies", [("StudyInstanceUID", made[0].study)]), None)
            if found is None:
                raise NotFound(client.name, "does not find what it has just stored")
            flags |= _seen(client, {**found, _PATIENT: {"vr": "LO", "Value": [TEST_PATIENT]}})
        finally:
            flags["deletion"] = _can(lambda: client.delete(made[0].study))
        if not flags["deletion"]:
            yield note(
                about, f"does not delete: the test study {TEST_PATIENT} stays", "delete it by the archive's own means"
            )


def _retrieved(client: Client, about: str, made: list[Generated]) -> Iterator[Finding]:
    sent = {one.path.read_bytes()[-512:] for one in made}  # the pixels
    with client.retrieve(made[0].study) as instances:
        came = {one.read()[-512:] for one in instances}
    if came != sent:
        yield fault(about, "a study comes back changed or not whole", "do not store there before this is understood")
        return
    client.metadata(made[0].study)
    client.frames(made[0].study, made[0].series, made[0].sop_instance, [1])
    yield ok(about, "retrieves studies, metadata and frames; the pixels come back as they went")


def _seen(client: Client, found: Mapping[str, Any]) -> dict[str, bool]:
    """Ask in the ways in which archives differ; the study that was found must be found again."""
    study, patient = _value(found, _STUDY), _value(found, _PATIENT)
    ask = client.like(replace(PROFILES["standard"], max_limit=1))
    flags = {
        "lists of UIDs": _finds(ask, [("StudyInstanceUID", f"{study},1.2.3.4")], study),
        "searches across studies": _can(lambda: next(ask.search("series", []), None)),
        "pages of 1000": _can(
            lambda: next(client.like(replace(client.profile, max_limit=_LARGE_PAGE)).search("studies", []), None)
        ),
        "number of series": _SERIES_COUNT
        in _first(ask, [("StudyInstanceUID", study), ("includefield", _SERIES_COUNT)]),
    }
    if len(patient) > 1:
        pattern = [("PatientID", f"{patient[:-1]}*"), ("StudyInstanceUID", study)]
        flags["wildcards"] = _finds(ask, pattern, study)
    return flags


def _value(model: Mapping[str, Any], tag: str) -> str:
    values = model.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _first(client: Client, parameters: list[tuple[str, str]]) -> Mapping[str, Any]:
    with suppress(RequestRefused, TooLarge):  # that it refuses is the answer
        return next(client.matches("studies", parameters), {})
    return {}


def _finds(client: Client, parameters: list[tuple[str, str]], study: str) -> bool:
    return _value(_first(client, parameters), _STUDY) == study


def _can(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (RequestRefused, NotFound, TooLarge, SignInRefused):
        return False
    except ArchiveError as error:
        if error.http_status == 501:
            return False
        raise
    return True


def _proposed(about: str, configured: str, flags: Mapping[str, bool]) -> Finding:
    """Compare what was seen with every profile; among equals the configured one, else the first, is proposed."""
    agreeing = {
        name: sum(FLAGS[flag](profile) == has for flag, has in flags.items()) for name, profile in PROFILES.items()
    }
    best = max(agreeing, key=lambda name: (agreeing[name], name == configured))
    if agreeing[configured] == len(flags):
        return ok(about, f"the profile {configured} fits")
    wrong = [flag for flag, has in flags.items() if FLAGS[flag](PROFILES[configured]) != has]
    if agreeing[best] > agreeing[configured]:
        return note(about, f"the profile {best} fits better: {', '.join(wrong)}", f"set archives.*.profile to {best}")
    return note(
        about, f"no profile fits better than {configured}, but not in: {', '.join(wrong)}", "nothing must be done"
    )
