"""Make rejection notes: Key Object Selections with pydicom, as a quality-control station stores them."""

import io
from collections.abc import Sequence

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def note(
    *instances: tuple[str, str, str],
    title: str = "113037",
    patient: str = "ID1",
    study: str = "",
    sop: str = "",
    scheme: str = "DCM",
    syntax: str = ExplicitVRLittleEndian,
) -> bytes:
    """Make a Part 10 file; `instances` are study, series and SOP Instance UIDs. It lies in the first one's study."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = KEY_OBJECT_SELECTION
    dataset.SOPInstanceUID = sop or generate_uid()
    dataset.StudyInstanceUID = study or (instances[0][0] if instances else generate_uid())
    dataset.SeriesInstanceUID = generate_uid()
    dataset.PatientID = patient
    dataset.PatientName = "Doe^John"
    dataset.Modality = "KO"
    dataset.ConceptNameCodeSequence = [_code(title, scheme)]
    dataset.CurrentRequestedProcedureEvidenceSequence = [
        _study(uid, [one for one in instances if one[0] == uid]) for uid in dict.fromkeys(one[0] for one in instances)
    ]
    dataset.ContentSequence = [_content()]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _code(value: str, scheme: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, "a title"
    return code


def _content() -> Dataset:
    """Make a content item with a code of its own, which is not the document's title."""
    item = Dataset()
    item.ConceptNameCodeSequence = [_code("113012", "DCM")]
    item.ValueType, item.TextValue = "TEXT", "blurred"
    return item


def _study(uid: str, instances: Sequence[tuple[str, str, str]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = uid
    study.ReferencedSeriesSequence = []
    for series_uid in dict.fromkeys(one[1] for one in instances):
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = []
        for _, _, sop in (one for one in instances if one[1] == series_uid):
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = SECONDARY_CAPTURE, sop
            series.ReferencedSOPSequence.append(reference)
        study.ReferencedSeriesSequence.append(series)
    return study
