"""The part of the configuration that says how to sign in to an archive."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@]+$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class NoAuth(_Model):
    """Sign in with nothing."""

    kind: Literal["none"] = "none"


class BasicAuth(_Model):
    """Sign in with a user name and a password."""

    kind: Literal["basic"]
    username: str
    password: SecretStr | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one_password(self) -> "BasicAuth":
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give either password_file or password: ${ENVIRONMENT_VARIABLE}")
        return self


class BearerAuth(_Model):
    """Sign in with a bearer token, best from a file that something else keeps fresh."""

    kind: Literal["bearer"]
    token: SecretStr | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _one_token(self) -> "BearerAuth":
        if (self.token is None) == (self.token_file is None):
            raise ValueError("give either token_file or token: ${ENVIRONMENT_VARIABLE}")
        return self


class OAuth2Auth(_Model):
    """Sign in with tokens that a token server gives for client credentials (RFC 6749 4.4)."""

    kind: Literal["oauth2"]
    token_url: HttpUrl
    client_id: str
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    client_authentication: Literal["basic", "post"] = "basic"
    scope: str | None = None
    audience: str | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> "OAuth2Auth":
        if (self.client_secret is None) == (self.client_secret_file is None):
            raise ValueError("give either client_secret_file or client_secret: ${ENVIRONMENT_VARIABLE}")
        return self


class AzureAuth(_Model):
    """Sign in with an identity of Microsoft Entra, by default whichever the machine has."""

    kind: Literal["azure"]
    credential: Literal["default", "managed_identity", "workload_identity", "client_secret"] = "default"
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    authority: str | None = None
    scope: str | None = None

    @model_validator(mode="after")
    def _secret_where_it_belongs(self) -> "AzureAuth":
        secrets = (self.client_secret is not None) + (self.client_secret_file is not None)
        if self.credential != "client_secret" and secrets:
            raise ValueError("client_secret and client_secret_file belong to credential: client_secret")
        if self.credential == "client_secret" and not (secrets == 1 and self.tenant_id and self.client_id):
            raise ValueError(
                "credential: client_secret needs tenant_id, client_id, and either client_secret_file or "
                "client_secret: ${ENVIRONMENT_VARIABLE}"
            )
        return self


class GoogleAuth(_Model):
    """Sign in with a Google service account: its key file, or what the machine has."""

    kind: Literal["google"]
    key_file: Path | None = None
    scope: str | None = None


class AwsAuth(_Model):
    """Sign requests with AWS's Signature Version 4; the credentials are those that AWS's own tools would use."""

    kind: Literal["aws"]
    region: str
    service: str = "medical-imaging"
    aws_profile: str | None = None


Auth = Annotated[
    NoAuth | BasicAuth | BearerAuth | OAuth2Auth | AzureAuth | GoogleAuth | AwsAuth, Field(discriminator="kind")
]
