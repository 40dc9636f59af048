"""The commands `dicom-gateway web ...`: the operations of DICOMweb from the shell."""
