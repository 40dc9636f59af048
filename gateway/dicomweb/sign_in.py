"""Make of the configured way to sign in what signs the requests."""

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from gateway.config import Archive
from gateway.credentials import AwsAuth, AzureAuth, BasicAuth, BearerAuth, GoogleAuth, OAuth2Auth
from gateway.dicomweb import clouds
from gateway.dicomweb.auth import Auth, Basic, Bearer, TokenFile
from gateway.dicomweb.tokens import Refreshing, client_credentials
from gateway.dicomweb.transport import tls
from gateway.errors import ConfigError, Fault, SignInRefused


def sign_in(name: str, archive: Archive) -> Auth | None:
    """Give what signs the requests to an archive, None when nothing does; raises ConfigError."""
    how = archive.auth
    if isinstance(how, BasicAuth):
        return Basic(how.username, _at_start(how.password, how.password_file))
    if isinstance(how, BearerAuth):
        return Bearer(how.token.get_secret_value()) if how.token else TokenFile(how.token_file or Path())
    if isinstance(how, OAuth2Auth):
        return Refreshing(
            client_credentials(
                how.token_url,
                how.client_id,
                _secret(how.client_secret, how.client_secret_file),
                scope=how.scope,
                audience=how.audience,
                in_body=how.client_authentication == "post",
                verify=tls(how.token_url, name, archive.ca, archive.certificate, archive.key),
                proxy=archive.proxy,
            )
        )
    return _cloud(how, archive.proxy)


def _cloud(how: object, proxy: str | None) -> Auth | None:
    if isinstance(how, AzureAuth):
        fetch = clouds.azure(
            how.credential,
            scope=how.scope,
            tenant_id=how.tenant_id,
            client_id=how.client_id,
            secret=_secret(how.client_secret, how.client_secret_file),
            authority=how.authority,
            proxy=proxy,
        )
        return Refreshing(fetch)
    if isinstance(how, GoogleAuth):
        return Refreshing(clouds.google(key_file=how.key_file, scope=how.scope, proxy=proxy))
    if isinstance(how, AwsAuth):
        return clouds.Aws(how.region, how.service, how.aws_profile)
    return None


def _secret(given: SecretStr | None, file: Path | None) -> Callable[[], str]:
    """Give what reads a secret, a file's each time anew, so that it can be changed while the gateway runs."""

    def read() -> str:
        if file is None:
            return given.get_secret_value() if given else ""
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SignInRefused("sign-in", f"{file} cannot be read: {error.strerror}") from error

    return read


def _at_start(given: SecretStr | None, file: Path | None) -> str:
    try:
        return _secret(given, file)()
    except SignInRefused as error:
        raise ConfigError("the sign-in", (Fault("auth.password_file", error.problem),)) from error
