"""Answer every C-FIND with a number of responses, by pynetdicom as it comes: its handler, its threads, no log."""

import sys
from collections.abc import Iterator

from bench import wire
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt


def main() -> None:
    """Serve on a port of the loopback: arguments are the port and the number of responses."""
    port, count = map(int, sys.argv[1:])
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    entity = AE(ae_title="STOCK")
    entity.add_supported_context(wire.STUDY_ROOT_FIND, wire.EXPLICIT_LE)
    entity.add_supported_context("1.2.840.10008.1.1")

    def answer(_: evt.Event) -> Iterator[tuple[int, Dataset]]:
        for number in range(count):
            yield 0xFF00, _study(number)

    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_FIND, answer)])


def _study(number: int) -> Dataset:
    dataset = Dataset()
    dataset.StudyDate, dataset.StudyTime = "20230101", "120000"
    dataset.AccessionNumber = f"A{number:08}"
    dataset.QueryRetrieveLevel, dataset.RetrieveAETitle = "STUDY", "STOCK"
    dataset.InstanceAvailability, dataset.ModalitiesInStudy = "ONLINE", "CT"
    dataset.StudyDescription = "Benchmark"
    dataset.PatientName, dataset.PatientID = f"Bench^{number:08}", f"P{number:08}"
    dataset.PatientBirthDate = ""
    dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.1.1000001.{100_000_000 + number}"
    dataset.NumberOfStudyRelatedInstances = 1
    return dataset


if __name__ == "__main__":
    main()
