"""The DICOMweb client; the only package that imports httpx."""
