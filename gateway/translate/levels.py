"""The Query/Retrieve Information Models: levels, unique keys and the level of an attribute (PS3.4 C.3 and C.6)."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from pydicom.datadict import keyword_for_tag

PATIENT: Final = "PATIENT"
STUDY: Final = "STUDY"
SERIES: Final = "SERIES"
IMAGE: Final = "IMAGE"
LEVELS: Final = (PATIENT, STUDY, SERIES, IMAGE)

UNIQUE_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        PATIENT: "PatientID",
        STUDY: "StudyInstanceUID",
        SERIES: "SeriesInstanceUID",
        IMAGE: "SOPInstanceUID",
    }
)
"""The unique key of each level."""


class Model(Enum):
    """Name an information model by its levels, from the root down (PS3.4 C.3.1 to C.3.3)."""

    PATIENT_ROOT = LEVELS
    STUDY_ROOT = (STUDY, SERIES, IMAGE)
    PATIENT_STUDY_ONLY = (PATIENT, STUDY)

    def above(self, level: str) -> tuple[str, ...]:
        """Give the levels above `level`, from the root down."""
        levels: tuple[str, ...] = self.value
        return levels[: levels.index(level)]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STUDY_KEYWORDS: Final = _words(
    """
    AccessionNumber AdditionalPatientHistory AdmissionID AdmittingDate AdmittingDiagnosesCodeSequence
    AdmittingDiagnosesDescription AdmittingTime Allergies AnatomicRegionsInStudyCodeSequence
    ConsultingPhysicianIdentificationSequence ConsultingPhysicianName CurrentPatientLocation InstitutionName
    IssuerOfAccessionNumberSequence IssuerOfAdmissionIDSequence IssuerOfServiceEpisodeIDSequence
    LastMenstrualDate MedicalAlerts ModalitiesInStudy NameOfPhysiciansReadingStudy
    NumberOfStudyRelatedInstances NumberOfStudyRelatedSeries Occupation OtherStudyNumbers PatientAge
    PatientBodyMassIndex PatientInstitutionResidence PatientSexNeutered PatientSize PatientSizeCodeSequence
    PatientState PatientWeight PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
    PhysiciansReadingStudyIdentificationSequence PregnancyStatus ProcedureCodeSequence ReasonForStudy
    ReasonForVisit ReasonForVisitCodeSequence ReferencedStudySequence ReferringPhysicianAddress
    ReferringPhysicianIdentificationSequence ReferringPhysicianName ReferringPhysicianTelephoneNumbers
    RequestedProcedureCodeSequence RequestedProcedureDescription RequestingPhysician RequestingService
    RouteOfAdmissions SOPClassesInStudy ServiceEpisodeDescription ServiceEpisodeID SmokingStatus SpecialNeeds
    StudyComments StudyDate StudyDescription StudyID StudyIDIssuer StudyInstanceUID StudyPriorityID
    StudyStatusID StudyTime StudyUpdateDateTime
    """
)  # Institution Name is an attribute of the equipment, but users ask for it by study and archives know it there

_SERIES_KEYWORDS: Final = _words(
    """
    AnatomicalOrientationType BodyPartExamined ClinicalTrialSeriesDescription ClinicalTrialSeriesID
    CommentsOnThePerformedProcedureStep DateOfLastCalibration DeviceSerialNumber DeviceUID
    FrameOfReferenceUID GantryID InstitutionAddress InstitutionalDepartmentName
    InstitutionalDepartmentTypeCodeSequence LargestPixelValueInSeries Laterality Manufacturer
    ManufacturerModelName Modality NumberOfSeriesRelatedInstances OperatorIdentificationSequence
    OperatorsName PatientPosition PerformedProcedureStepDescription PerformedProcedureStepEndDate
    PerformedProcedureStepEndTime PerformedProcedureStepID PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime PerformedProcedureTypeDescription PerformedProtocolCodeSequence
    PerformedStationAETitle PerformedStationName PerformingPhysicianIdentificationSequence
    PerformingPhysicianName PositionReferenceIndicator ProtocolName ReferencedPerformedProcedureStepSequence
    RelatedSeriesSequence RequestAttributesSequence ScheduledProcedureStepStartDate
    ScheduledProcedureStepStartTime SeriesDate SeriesDescription SeriesDescriptionCodeSequence
    SeriesInstanceUID SeriesNumber SeriesTime SeriesType SmallestPixelValueInSeries SoftwareVersions
    SpatialResolution StationName TimeOfLastCalibration TreatmentSessionUID
    """
)

_PATIENT_KEYWORDS: Final = _words(
    """
    NumberOfPatientRelatedInstances NumberOfPatientRelatedSeries NumberOfPatientRelatedStudies
    ReferencedPatientAliasSequence ReferencedPatientSequence
    """
)
_PATIENT_GROUP: Final = 0x0010


def level_of(tag: int) -> str | None:
    """Give the level an attribute belongs to; None for those of every level, private and unknown ones included."""
    keyword = keyword_for_tag(tag)
    if not keyword or keyword == "TimezoneOffsetFromUTC":
        return None
    if keyword in _STUDY_KEYWORDS:
        return STUDY
    if keyword in _SERIES_KEYWORDS:
        return SERIES
    if tag >> 16 == _PATIENT_GROUP or keyword in _PATIENT_KEYWORDS:
        return PATIENT
    return IMAGE


def is_below(tag: int, level: str) -> bool:
    """Tell whether an attribute belongs to a lower level than `level`, where it can neither narrow nor be known."""
    own = level_of(tag)
    return own is not None and LEVELS.index(own) > LEVELS.index(level)
