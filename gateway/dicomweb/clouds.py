"""Sign in to the clouds with their own libraries, each an extra of the installation and loaded when it is wanted."""

import hashlib
import importlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from gateway.dicomweb.auth import Auth, Request
from gateway.dicomweb.tokens import Token
from gateway.errors import ArchiveUnreachable, ConfigError, Fault, SignInRefused

AZURE_SCOPE = "https://dicom.healthcareapis.azure.com/.default"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-healthcare"

_NAME = "sign-in"
_LONGEST = 200
_AADSTS = re.compile(r"AADSTS\d+")


def azure(
    credential: str,
    *,
    scope: str | None = None,
    tenant_id: str | None = None,
    client_id: str | None = None,
    secret: Callable[[], str] | None = None,
    authority: str | None = None,
    proxy: str | None = None,
) -> Callable[[], Token]:
    """Make a `fetch` for `Refreshing` by Microsoft Entra; raises ConfigError without the extra `azure`."""
    identity = _extra("azure", "azure.identity")
    failures = _extra("azure", "azure.core.exceptions")
    options: dict[str, Any] = {"proxies": {"http": proxy, "https": proxy}} if proxy else {}
    if authority:
        # one's own authority is not in the list that the discovery would ask for
        options |= {"authority": authority, "disable_instance_discovery": True}

    def made() -> Any:
        if credential == "client_secret":
            return identity.ClientSecretCredential(tenant_id, client_id, secret() if secret else "", **options)
        if credential == "managed_identity":
            return identity.ManagedIdentityCredential(client_id=client_id, **options)
        if credential == "workload_identity":
            return identity.WorkloadIdentityCredential(tenant_id=tenant_id, client_id=client_id, **options)
        return identity.DefaultAzureCredential(managed_identity_client_id=client_id, **options)

    def fetch() -> Token:
        try:
            with made() as one:  # anew, since one that is kept would repeat the token that was refused
                token = one.get_token(scope or AZURE_SCOPE)
        except failures.ClientAuthenticationError as error:
            raise SignInRefused(_NAME, f"Azure refuses: {_code(error)}") from error
        except failures.AzureError as error:
            raise ArchiveUnreachable(_NAME, f"Azure gives no token: {_code(error)}") from error
        except ValueError as error:
            raise SignInRefused(_NAME, f"Azure's identity is not complete: {_first_line(error)}") from error
        return Token(token.token, token.expires_on - time.time())

    return fetch


def google(
    *, key_file: Path | None = None, scope: str | None = None, proxy: str | None = None
) -> Callable[[], Token]:
    """Make a `fetch` for `Refreshing` by Google; raises ConfigError without the extra `google` or its credentials."""
    auth = _extra("google", "google.auth")
    accounts = _extra("google", "google.oauth2.service_account")
    transport = _extra("google", "google.auth.transport.requests")
    requests = _extra("google", "requests")
    failures = auth.exceptions
    scopes = [scope or GOOGLE_SCOPE]
    try:
        if key_file is not None:
            credentials = accounts.Credentials.from_service_account_file(str(key_file), scopes=scopes)
        else:
            credentials, _ = auth.default(scopes=scopes)
    except OSError as error:
        raise _wrong("key_file", f"{key_file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _wrong("key_file", f"{key_file} is not the key of a service account") from error
    except failures.DefaultCredentialsError as error:
        raise _wrong("key_file", "is not given, and the machine has no default credentials of Google") from error

    def fetch() -> Token:
        with requests.Session() as session:
            session.proxies = {"http": proxy, "https": proxy} if proxy else {}
            try:
                credentials.refresh(transport.Request(session))
            except failures.TransportError as error:
                raise ArchiveUnreachable(_NAME, "Google's token server gives no answer") from error
            except failures.GoogleAuthError as error:
                raise SignInRefused(_NAME, f"Google refuses: {_first_line(error)}") from error
        return Token(credentials.token, credentials.expiry.replace(tzinfo=UTC).timestamp() - time.time())

    return fetch


class Aws(Auth):
    """Sign requests by AWS Signature Version 4; raises ConfigError without the extra `aws` or without credentials."""

    def __init__(self, region: str, service: str, profile: str | None = None) -> None:
        self._signer = _extra("aws", "botocore.auth").SigV4Auth
        self._request = _extra("aws", "botocore.awsrequest").AWSRequest
        session = _extra("aws", "botocore.session")
        failures = _extra("aws", "botocore.exceptions")
        self._failure = failures.BotoCoreError
        self._region, self._service = region, service
        try:
            self._credentials = session.Session(profile=profile).get_credentials()
        except failures.BotoCoreError as error:
            raise _wrong("aws_profile", _first_line(error)) from error
        if self._credentials is None:
            problem = "there are no credentials of AWS: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"
            raise _wrong("aws_profile", problem)

    def headers(self, request: Request) -> Mapping[str, str]:
        """Give the headers that sign a request; its body is read for its digest."""
        try:
            credentials = self._credentials.get_frozen_credentials()
        except self._failure as error:
            raise SignInRefused(_NAME, f"AWS gives no credentials: {_first_line(error)}") from error
        signed = self._request(method=request.method, url=_canonical(request.url))
        signed.headers["X-Amz-Content-SHA256"] = _digest(request.body or ())
        self._signer(credentials, self._service, self._region).add_auth(signed)
        return dict(signed.headers.items())

    def renew(self, refused: str) -> bool:
        """Say whether the credentials have changed since."""
        return self._credentials.get_frozen_credentials().access_key not in refused


def _canonical(url: str) -> str:
    """Encode the query as the signature wants it, whatever is literal on the wire; the service does the same."""
    parts = urlsplit(url)
    query = urlencode(parse_qsl(parts.query, keep_blank_values=True), quote_via=quote, safe="-_.~")
    return parts._replace(query=query).geturl()


def _digest(body: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def _extra(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        problem = f"{name} needs the extra of that name: pip install 'dicom-gateway[{name}]'"
        raise _wrong("kind", problem) from error


def _wrong(option: str, problem: str) -> ConfigError:
    return ConfigError("the sign-in", (Fault(f"auth.{option}", problem),))


def _code(error: Exception) -> str:
    """Give Azure's own code, which its documentation explains; the text around it may repeat what was sent."""
    found = _AADSTS.search(str(error))
    return found[0] if found else type(error).__name__


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:_LONGEST]
