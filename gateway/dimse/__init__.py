"""The DIMSE face; the only package that imports pynetdicom."""
