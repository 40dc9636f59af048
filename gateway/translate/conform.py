"""Make of a Part 10 file what its archive's profile asks for; anything else goes as it came."""

from collections.abc import Callable
from typing import BinaryIO

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.translate import patient_id
from gateway.translate.part10 import file_header, read_file_meta
from gateway.translate.profiles import Profile
from gateway.translate.transcode import convert

PATIENT_ID_ADDED = "empty Patient ID added"
CONVERTED = "converted to Explicit VR Little Endian"

_PIECE = 1 << 16


def concerns(profile: Profile, transfer_syntax: str) -> bool:
    """Tell whether anything of an instance might have to change, without a look at it."""
    return profile.require_patient_id or (profile.explicit_vr_only and transfer_syntax == ImplicitVRLittleEndian)


def conform(
    source: BinaryIO,
    identity: tuple[str, str, str],
    profile: Profile,
    scratch: Callable[[], BinaryIO],
    *,
    source_ae: str = "",
) -> tuple[BinaryIO, list[str]]:
    """Give the stream to send, which is `source` when nothing has to change, and what was changed.

    `identity` are SOP Class UID, SOP Instance UID and Transfer Syntax UID; `scratch` opens a stream to be written
    and read. Raises DataSetError and TranscodingError when the instance cannot be read, OSError from the streams.
    """
    changes: list[str] = []
    sop_class, sop_instance, transfer_syntax = identity
    if profile.require_patient_id:
        source.seek(read_file_meta(_rewound(source)).offset)
        absent = patient_id.missing(source, transfer_syntax)
        if absent is not None:
            source = _inserted(_rewound(source), *absent, scratch())
            changes.append(PATIENT_ID_ADDED)
    if profile.explicit_vr_only and transfer_syntax == ImplicitVRLittleEndian:
        target = scratch()
        source.seek(read_file_meta(_rewound(source)).offset)
        target.write(file_header(sop_class, sop_instance, ExplicitVRLittleEndian, source_ae=source_ae))
        convert(source, ImplicitVRLittleEndian, target, ExplicitVRLittleEndian)
        source = target
        changes.append(CONVERTED)
    return source, changes


def _inserted(source: BinaryIO, at: int, element: bytes, target: BinaryIO) -> BinaryIO:
    while piece := source.read(min(at, _PIECE)):
        at -= target.write(piece)
    target.write(element)
    while piece := source.read(_PIECE):
        target.write(piece)
    return target


def _rewound(stream: BinaryIO) -> BinaryIO:
    stream.seek(0)
    return stream
