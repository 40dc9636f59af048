"""What each kind of DICOMweb archive can do: one row of flags per service; no other code asks for its name.

A profile decides only what is *pushed* to the archive; the answer of a query is finished by
`gateway.translate.matching` and is the same whatever the profile says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

Filters = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Profile:
    """State what an archive understands and how it stores (PS3.18 10.4 to 10.6, where services differ)."""

    name: str
    wildcard: bool = True
    """`*` and `?` in the values of a search are wildcards; False: they are taken literally and never sent."""
    name_wildcard: bool = False
    """PN values are matched whole, with wildcards and whatever the case: `*DOE*` yields a superset. Of Orthanc this
    is true unless its option QidoCaseSensitive is set."""
    uid_list: bool = True
    """A comma-separated list of UIDs is one search; False: one search per UID."""
    unknown_attribute: Literal["reject", "ignore"] = "reject"
    """What becomes of a search with an attribute that is not indexed; for information, none is sent."""
    include_all: bool = True
    """`includefield=all` really returns every attribute, so it can stand for a list that is too long."""
    max_limit: int = 100
    """The largest `limit` of a page that the archive takes."""
    query_length: int = 6000
    """The longest query string in characters, with room left for the path in an 8 KiB request line."""
    filters: Filters | None = None
    """Keywords per level (STUDY, SERIES, IMAGE) that may be sent as matching keys; None: every attribute."""
    computed: frozenset[str] = frozenset(
        {
            "ModalitiesInStudy",
            "NumberOfStudyRelatedSeries",
            "NumberOfStudyRelatedInstances",
            "NumberOfSeriesRelatedInstances",
        }
    )
    """Computed attributes that a search returns when asked; the others cost further searches."""
    sequences: bool = True
    """A search returns sequences that are asked for; False: keys that are sequences cannot be matched."""
    flat_search: bool = True
    """`/series` and `/instances` can be searched across studies, as relational queries need."""
    plain_values_only: bool = False
    """The archive does not undo percent-encoding: only letters, digits and `-._~` may be sent in a value."""
    refused_characters: str = ""
    """Characters that make the archive refuse a search whatever the attribute, encoded or not."""
    store_batch: int = 10
    """Instances per STOW-RS request for which the outcome of each one can still be told."""
    store_part_transfer_syntax: bool = False
    """A part's Content-Type may carry `transfer-syntax`; False: it must be exactly `application/dicom`."""
    explicit_vr_only: bool = False
    """Implicit VR Little Endian is refused or warned about: convert to Explicit VR before storing."""
    require_patient_id: bool = False
    """An instance must have Patient ID (0010,0020), if only empty: add it empty before storing."""
    harmless_warnings: frozenset[int] = frozenset()
    """Warning Reasons with which an instance is stored as it was sent: no peer is told of them."""
    transcodes: frozenset[str] = frozenset({EXPLICIT_VR_LITTLE_ENDIAN})
    """Transfer Syntax UIDs the archive can convert a single instance to on retrieval."""
    series_retrieval: bool = True
    """A series can be retrieved in one answer; False: only instance by instance."""
    overwrite: Literal["put", "delete", "none"] = "none"
    """How another instance under the same UID is replaced: PUT, DELETE then POST, or not at all."""
    delete: bool = False
    """DELETE of studies, series and instances is there."""


_STANDARD_FILTERS: Filters = MappingProxyType(
    {
        "STUDY": frozenset(
            {"StudyInstanceUID", "StudyDate", "AccessionNumber", "PatientID", "StudyID", "ModalitiesInStudy"}
        ),
        "SERIES": frozenset({"SeriesInstanceUID", "Modality", "PerformedProcedureStepStartDate"}),
        "IMAGE": frozenset({"SOPInstanceUID", "SOPClassUID"}),
    }
)  # what every origin server has (PS3.18 Table 10.6.1-5), without names, times and numbers

_AZURE_FILTERS: Filters = MappingProxyType(
    {
        "STUDY": frozenset(
            {
                "StudyInstanceUID",
                "StudyDate",
                "StudyDescription",
                "AccessionNumber",
                "PatientID",
                "PatientBirthDate",
                "ModalitiesInStudy",
            }
        ),
        "SERIES": frozenset(
            {"SeriesInstanceUID", "Modality", "PerformedProcedureStepStartDate", "ManufacturerModelName"}
        ),
        "IMAGE": frozenset({"SOPInstanceUID"}),
    }
)

_GOOGLE_FILTERS: Filters = MappingProxyType(
    {
        "STUDY": frozenset({"StudyInstanceUID", "StudyDate", "AccessionNumber", "PatientID"}),
        "SERIES": frozenset({"SeriesInstanceUID", "Modality"}),
        "IMAGE": frozenset({"SOPInstanceUID"}),
    }
)

_ORTHANC_FILTERS: Filters = MappingProxyType(
    {
        # Without ModalitiesInStudy: the plug-in applies limit and offset before that filter.
        "STUDY": frozenset(
            {
                "StudyInstanceUID",
                "StudyDate",
                "StudyDescription",
                "AccessionNumber",
                "PatientID",
                "PatientName",
                "PatientBirthDate",
                "ReferringPhysicianName",
            }
        ),
        "SERIES": frozenset({"SeriesInstanceUID", "Modality"}),
        "IMAGE": frozenset({"SOPInstanceUID"}),
    }
)

_STANDARD = Profile(name="standard", filters=_STANDARD_FILTERS)

_AZURE = Profile(
    name="azure",
    wildcard=False,
    uid_list=False,
    include_all=False,
    max_limit=200,
    filters=_AZURE_FILTERS,
    computed=frozenset({"ModalitiesInStudy", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"}),
    refused_characters="<",
    explicit_vr_only=True,
    require_patient_id=True,
    # 1: some attributes cannot be searched for; 45063: Implicit VR, which the open-source server stores
    harmless_warnings=frozenset({1, 45063}),
    transcodes=frozenset({EXPLICIT_VR_LITTLE_ENDIAN, JPEG_2000_LOSSLESS}),
    overwrite="delete",
    delete=True,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "standard": _STANDARD,
        "azure": _AZURE,
        # as strict as Azure in all but storing: what comes back is what went in, byte for byte
        "embedded": replace(_AZURE, name="embedded", explicit_vr_only=False, require_patient_id=False),
        "google": Profile(
            name="google",
            wildcard=False,
            uid_list=False,
            max_limit=1000,
            filters=_GOOGLE_FILTERS,
            overwrite="delete",
            delete=True,
        ),
        "orthanc": Profile(
            name="orthanc",
            name_wildcard=True,
            unknown_attribute="ignore",
            include_all=False,
            max_limit=1000,
            filters=_ORTHANC_FILTERS,
            plain_values_only=True,
            sequences=False,
        ),
        "dcm4chee": replace(_STANDARD, name="dcm4chee", max_limit=1000),
        "aws": Profile(
            name="aws",
            wildcard=False,
            uid_list=False,
            include_all=False,
            filters=_GOOGLE_FILTERS,
            flat_search=False,
            series_retrieval=False,
            delete=True,
        ),
    }
)
