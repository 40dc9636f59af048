"""A DICOM gateway: DIMSE on the hospital's side, DICOMweb on the archive's."""
