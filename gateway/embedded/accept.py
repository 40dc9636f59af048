"""Choose the form of an answer by the Accept headers, as narrowly as the strictest service does (PS3.18 8.7)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.translate.multipart import media_type

EXPLICIT: Final = "1.2.840.10008.1.2.1"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
STORED: Final = "*"
DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
OCTETS: Final = "application/octet-stream"
JP2: Final = "image/jp2"

_RELATED: Final = "multipart/related"
_ANY: Final = "*/*"
_JSON: Final = frozenset({DICOM_JSON, "application/json", "application/*", _ANY})


class NotAcceptable(Exception):
    """Say that the service has no answer in a form that the client accepts."""


@dataclass(frozen=True, slots=True)
class Form:
    """Hold the chosen form: media type, multipart or not, and the transfer syntax, `*` for the one stored."""

    media: str
    multipart: bool
    transfer_syntax: str


class Offer(NamedTuple):
    """State a media type that a resource has; the first of its transfer syntaxes is what is given unasked."""

    media: str
    bare: bool
    syntaxes: tuple[str, ...]


STUDY_OR_SERIES: Final = (Offer(DICOM, bare=False, syntaxes=(EXPLICIT, STORED, JPEG_2000)),)
INSTANCE: Final = (Offer(DICOM, bare=True, syntaxes=(EXPLICIT, STORED, JPEG_2000)),)
FRAMES: Final = (
    Offer(OCTETS, bare=True, syntaxes=(EXPLICIT, STORED)),
    Offer(JP2, bare=False, syntaxes=(JPEG_2000,)),
)


def takes_json(values: Sequence[str]) -> bool:
    """Say whether Accept headers take application/dicom+json; missing ones do not."""
    return any(media_type(one)[0] in _JSON for value in values for one in _ranges(value))


def choose(values: Sequence[str], offers: Sequence[Offer]) -> Form:
    """Choose what the client likes best; among equals the stored transfer syntax wins. Raises NotAcceptable."""
    forms = [found for value in values for found in _forms(value, offers)]
    if not forms:
        raise NotAcceptable
    return max(forms, key=lambda form: (form[0], form[1].transfer_syntax == STORED))[1]


def _forms(value: str, offers: Sequence[Offer]) -> Iterator[tuple[float, Form]]:
    """Yield quality and form of each media range in one header."""
    any_is_multipart = value.strip().lower().startswith(_RELATED)  # the service's own quirk
    for one in _ranges(value):
        kind, parameters = media_type(one)
        quality = _quality(parameters)
        if kind == _ANY:
            if any_is_multipart or any(offer.bare for offer in offers):
                yield quality, Form(offers[0].media, multipart=True, transfer_syntax=STORED)
            continue
        multipart = kind == _RELATED
        media = parameters.get("type", "").lower() if multipart else kind
        for offer in offers:
            syntax = parameters.get("transfer-syntax", offer.syntaxes[0])
            if media in (offer.media, _ANY) and (multipart or offer.bare) and syntax in offer.syntaxes:
                yield quality, Form(offer.media, multipart, syntax)


def _quality(parameters: Mapping[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 0.0


def _ranges(value: str) -> list[str]:
    """Split a header at the commas outside quotes."""
    found, quoted = [""], False
    for character in value:
        quoted = quoted != (character == '"')
        if character == "," and not quoted:
            found.append("")
        else:
            found[-1] += character
    return [one.strip() for one in found if one.strip()]
