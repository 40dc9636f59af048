"""A small strict DICOMweb archive: the default archive and the tests' simulator."""
