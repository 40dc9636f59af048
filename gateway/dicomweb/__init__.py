"""A DICOMweb client for scripts and for the gateway; the only package that imports httpx.

from gateway.dicomweb import Client

with Client("https://archive.example.org/dicom-web") as archive:
    for result in archive.upload(Path("study").glob("*.dcm")):
        print(result.source, result.state)
    for study in archive.studies(PatientID="ID1"):
        for instance in archive.retrieve(study.StudyInstanceUID):
            instance.save("study")
"""

from gateway.dicomweb.auth import Auth, Basic, Bearer, TokenFile
from gateway.dicomweb.client import Client
from gateway.dicomweb.clouds import Aws, azure, google
from gateway.dicomweb.retrieval import Instance, Instances
from gateway.dicomweb.stow import Held, Outcome, Upload
from gateway.dicomweb.tokens import Refreshing, Token, client_credentials
from gateway.dicomweb.uploading import Source, State, Uploaded

__all__ = [
    "Auth",
    "Aws",
    "Basic",
    "Bearer",
    "Client",
    "Held",
    "Instance",
    "Instances",
    "Outcome",
    "Refreshing",
    "Source",
    "State",
    "Token",
    "TokenFile",
    "Upload",
    "Uploaded",
    "azure",
    "client_credentials",
    "google",
]
