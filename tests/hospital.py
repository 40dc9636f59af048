"""A small hospital's data: patients, studies, series and instances with legal and consistent attributes."""

import random
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import queries
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.dicomweb.stow import Upload
from gateway.extent import Extent

_PATIENT = {"PatientName": queries.NAMES, "PatientBirthDate": ["19500101", "19991231", ""]}
_STUDY = {
    "StudyDate": ["20200101", "20200131", "20200229", "20201231", ""],
    "StudyTime": ["10", "1015", "101500", "101559.5", "235959.999999", ""],
    "AccessionNumber": [*queries.TEXTS, ""],
    "StudyID": queries.TEXTS,
    "StudyDescription": queries.TEXTS,
    "ReferringPhysicianName": [*queries.NAMES, ""],
    "PatientWeight": ["70", "70.0", "70.25", ""],
}
_SERIES = {
    "Modality": queries.MODALITIES,
    "SeriesNumber": ["1", "01", "2", "100"],
    "SeriesDescription": queries.TEXTS,
}


def instances(seed: int = 1) -> Iterator[Dataset]:
    """Give about sixty instances; Modalities in Study is on each although no instance has it."""
    choose = random.Random(seed)
    for number, patient_id in enumerate(queries.TEXTS, 1):
        patient = {keyword: choose.choice(values) for keyword, values in _PATIENT.items()} | {"PatientID": patient_id}
        for study_number in range(1, choose.randint(2, 3)):
            study = {keyword: choose.choice(values) for keyword, values in _STUDY.items()}
            study["StudyInstanceUID"] = f"1.2.{number}.{study_number}"
            series = [_series(choose, study["StudyInstanceUID"], one) for one in range(1, choose.randint(2, 4))]
            modalities = sorted({str(one["Modality"]) for one in series})
            for one in series:
                for instance_number in range(1, choose.randint(2, 3)):
                    yield _instance({**patient, **study, **one}, instance_number, modalities)


def _series(choose: random.Random, study: str, number: int) -> dict[str, object]:
    values: dict[str, object] = {keyword: choose.choice(values) for keyword, values in _SERIES.items()}
    items = []
    for _ in range(choose.randint(0, 2)):
        item = Dataset()
        for keyword in ("ScheduledProcedureStepID", "RequestedProcedureID"):
            queries.put(item, keyword, choose.choice(queries.TEXTS))
        items.append(item)
    return {**values, "SeriesInstanceUID": f"{study}.{number}", "RequestAttributesSequence": items}


def _instance(values: dict[str, object], number: int, modalities: list[str]) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = f"{values['SeriesInstanceUID']}.{number}"
    dataset.InstanceNumber = number
    dataset.ModalitiesInStudy = modalities
    for keyword, value in values.items():
        queries.put(dataset, keyword, value)
    return dataset


def upload(instance: Dataset, folder: Path) -> Upload:
    """Write an instance into a Part 10 file."""
    stored = deepcopy(instance)
    del stored.ModalitiesInStudy
    stored.file_meta = FileMetaDataset()
    stored.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stored.file_meta.MediaStorageSOPClassUID = stored.SOPClassUID
    stored.file_meta.MediaStorageSOPInstanceUID = stored.SOPInstanceUID
    encoded = BytesIO()
    dcmwrite(encoded, stored, enforce_file_format=True)
    path = folder / f"{stored.SOPInstanceUID}.dcm"
    path.write_bytes(encoded.getvalue())
    return Upload(
        extent=Extent.of(path),
        sop_class=stored.SOPClassUID,
        sop_instance=stored.SOPInstanceUID,
        study=stored.StudyInstanceUID,
        series=stored.SeriesInstanceUID,
    )
