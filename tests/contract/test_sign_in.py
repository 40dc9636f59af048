"""Every way to sign in, against a real token server, real TLS, and for AWS a signature computed anew."""

import hashlib
import hmac
import json
import sys
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError
from scripted_server import Answer, scripted
from token_server import CLIENT, SECRET, Keeper, keeping

from gateway import errors
from gateway.config import Archive
from gateway.connecting import connect
from gateway.dicomweb import Client
from gateway.dicomweb.stow import Held
from gateway.dicomweb.tokens import Refreshing, Token, client_credentials


def archive(url, auth, **options):
    return connect("main", Archive.model_validate({"url": f"{url}/v2", "auth": auth, **options}))


def oauth2(keeper, **more):
    return {"kind": "oauth2", "token_url": f"{keeper.url}/token", "client_id": CLIENT, "client_secret": SECRET} | more


def ask(client):
    assert list(client.studies()) == []


# what needs nobody else


def test_nothing_basic_and_bearer_sign_in_as_the_configuration_says(tmp_path):
    for name in ("password", "token"):
        (tmp_path / name).write_text(f"{name}-in-a-file\n")
    for auth, header in (
        ({"kind": "none"}, None),
        ({"kind": "basic", "username": "u", "password": "p"}, "Basic dTpw"),
        (
            {"kind": "basic", "username": "u", "password_file": str(tmp_path / "password")},
            "Basic " + b64encode(b"u:password-in-a-file").decode(),
        ),
        ({"kind": "bearer", "token": "t0ken"}, "Bearer t0ken"),
        ({"kind": "bearer", "token_file": str(tmp_path / "token")}, "Bearer token-in-a-file"),
    ):
        with scripted(Answer(204)) as server, archive(server.url.removesuffix("/v2"), auth) as client:
            ask(client)
            assert server.requests[0].headers.get("authorization") == header


# OAuth 2 client credentials


@pytest.mark.parametrize("way", ["basic", "post"])
def test_a_token_is_fetched_once_and_used_for_every_request(way):
    with keeping(Keeper()) as keeper:
        auth = oauth2(keeper, client_authentication=way, scope="dicom", audience="https://archive")
        with archive(keeper.url, auth) as client:
            for _ in range(3):
                ask(client)
        assert keeper.issued == ["token-1"]
        (form,) = keeper.forms
        assert (form["grant_type"], form["scope"], form["audience"]) == (
            "client_credentials",
            "dicom",
            "https://archive",
        )
        assert ("client_secret" in form) == (way == "post")


def test_the_secret_may_be_in_a_file_that_changes(tmp_path):
    file = tmp_path / "secret"
    file.write_text("wrong")
    with keeping(Keeper()) as keeper:
        auth = oauth2(keeper, client_secret=None, client_secret_file=str(file))
        with archive(keeper.url, auth) as client:
            with pytest.raises(errors.SignInRefused, match="invalid_client"):
                ask(client)
            file.write_text(f"{SECRET}\n")
            ask(client)
            file.unlink()
            keeper.good.clear()
            with pytest.raises(errors.SignInRefused, match="cannot be read"):
                ask(client)


def test_a_refused_token_is_renewed_once_and_no_more():
    with keeping(Keeper()) as keeper, archive(keeper.url, oauth2(keeper)) as client:
        ask(client)
        keeper.good.clear()  # the archive has forgotten it
        ask(client)
        assert keeper.issued == ["token-1", "token-2"]
        keeper.issue = lambda: "bad"
        keeper.good.clear()
        with pytest.raises(errors.SignInRefused) as caught:
            ask(client)
        assert caught.value.http_status == 401
        assert len(keeper.forms) == 3


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def refreshing(keeper, clock):
    return Refreshing(client_credentials(f"{keeper.url}/token", CLIENT, lambda: SECRET), clock=clock)


@pytest.mark.parametrize(("life", "still", "due"), [(3600, 3290, 3310), (60, 47, 49)])
def test_a_token_is_renewed_ahead_of_its_end(life, still, due):
    clock = Clock()
    with keeping(Keeper(life=life)) as keeper:
        auth = refreshing(keeper, clock)
        assert auth.header() == "Bearer token-1"
        clock.now = 1000 + still
        assert auth.header() == "Bearer token-1"
        clock.now = 1000 + due
        assert auth.header() == "Bearer token-2"


def test_while_a_token_holds_a_token_server_in_trouble_stops_nobody():
    clock = Clock()
    with keeping(Keeper()) as keeper:
        auth = refreshing(keeper, clock)
        auth.header()
        keeper.status, clock.now = 503, 4400.0
        assert auth.header() == auth.header() == "Bearer token-1"
        assert len(keeper.forms) == 2  # and it is not asked by every request
        clock.now = 4700.0
        with pytest.raises(errors.ArchiveBusy):
            auth.header()
        keeper.status = 200
        assert auth.header() == "Bearer token-2"


@pytest.mark.parametrize("begin", ["without a token", "with an old one", "with a refused one"])
def test_one_thread_fetches_for_all(begin):
    clock = Clock()
    with keeping(Keeper(delay=0.3)) as keeper:
        auth = refreshing(keeper, clock)
        if begin != "without a token":
            auth.header()
        before = len(keeper.forms)
        if begin == "with an old one":
            clock.now = 10_000.0
        got, threads = [], []
        for _ in range(12):
            action = (lambda: auth.renew("Bearer token-1")) if begin == "with a refused one" else auth.header
            threads.append(threading.Thread(target=lambda do=action: got.append(do())))
            threads[-1].start()
        for thread in threads:
            thread.join()
        assert len(keeper.forms) == before + 1
        assert len(set(got)) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, {}, b"<html>"), errors.AnswerUnreadable),
        (Answer(200, {}, b"{}"), errors.AnswerUnreadable),
        (Answer(200, {}, b'{"access_token": "a", "expires_in": "soon"}'), errors.AnswerUnreadable),
        (Answer(200, {}, b'{"access_token": "a\\nb"}'), errors.SignInRefused),
        (Answer(400, {}, b'{"error": "invalid_scope"}'), errors.SignInRefused),
        (Answer(403, {}, b""), errors.SignInRefused),
        (Answer(404, {}, b""), errors.NotFound),
        (Answer(500, {}, b""), errors.ArchiveBroken),
        (Answer(drop=True), errors.ArchiveError),
    ],
)
def test_each_failure_of_a_token_server_is_an_error_that_keeps_the_secret(answer, error):
    with scripted(answer) as server:
        auth = Refreshing(client_credentials(f"{server.url}/token", CLIENT, lambda: SECRET))
        with pytest.raises(error) as caught:
            auth.header()
    assert SECRET not in str(caught.value)


# TLS


def test_a_private_authority_is_believed_for_archive_and_token_server_and_no_other(tmp_path):
    authority = trustme.CA()
    with keeping(Keeper(), authority=authority, folder=tmp_path) as keeper:
        with archive(keeper.url, oauth2(keeper), ca=str(tmp_path / "ca.pem")) as client:
            ask(client)
        with archive(keeper.url, oauth2(keeper)) as client, pytest.raises(errors.ArchiveUnreachable):
            ask(client)


def test_a_client_certificate_opens_what_asks_for_one(tmp_path):
    authority = trustme.CA()
    ours = authority.issue_cert("gateway.example.org")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in ours.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    ca = {"ca": str(tmp_path / "ca.pem")}
    mine = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    with keeping(Keeper(), authority=authority, folder=tmp_path, ask_clients=True) as keeper:
        with archive(keeper.url, oauth2(keeper), **ca, **mine) as client:
            ask(client)
        with archive(keeper.url, oauth2(keeper), **ca) as client, pytest.raises(errors.ArchiveError):
            ask(client)


@pytest.mark.parametrize("option", ["ca", "certificate"])
def test_a_file_that_is_no_certificate_is_a_fault_of_the_configuration(tmp_path, option):
    file = tmp_path / "file.pem"
    for content in (None, "nonsense"):
        if content:
            file.write_text(content)
        with pytest.raises(errors.ConfigError, match=rf"archives\.main\.{option}"):
            archive("https://127.0.0.1:9", {"kind": "none"}, **{option: str(file)})


def test_static_headers_are_sent():
    with scripted(Answer(204)) as server:
        with archive(server.url.removesuffix("/v2"), {"kind": "none"}, headers={"X-Api-Key": "k3y"}) as client:
            ask(client)
        assert server.requests[0].headers["x-api-key"] == "k3y"


# the clouds


def test_azure_s_client_secret_signs_in(tmp_path, monkeypatch):
    with keeping(Keeper(), authority=trustme.CA(), folder=tmp_path) as keeper:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        auth = {
            "kind": "azure",
            "credential": "client_secret",
            "tenant_id": "8f3b7c1e-0000-4000-8000-000000000001",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "authority": keeper.url,
        }
        with archive(keeper.url, auth, ca=str(tmp_path / "ca.pem")) as client:
            ask(client)
            keeper.good.clear()
            ask(client)
        assert keeper.issued == ["token-1", "token-2"]
        assert "https://dicom.healthcareapis.azure.com/.default" in keeper.forms[0]["scope"]
        keeper.status = 401
        with archive(keeper.url, auth, ca=str(tmp_path / "ca.pem")) as client:
            with pytest.raises(errors.SignInRefused, match="AADSTS7000215") as caught:
                ask(client)
        assert SECRET not in str(caught.value)


def test_azure_s_workload_identity_signs_in(tmp_path, monkeypatch):
    (tmp_path / "federated").write_text("assertion-of-the-cluster")
    with keeping(Keeper(), authority=trustme.CA(), folder=tmp_path) as keeper:
        for name, value in {
            "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem"),
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "federated"),
            "AZURE_TENANT_ID": "8f3b7c1e-0000-4000-8000-000000000001",
            "AZURE_CLIENT_ID": CLIENT,
        }.items():
            monkeypatch.setenv(name, value)
        auth = {"kind": "azure", "credential": "workload_identity", "authority": keeper.url}
        with archive(keeper.url, auth, ca=str(tmp_path / "ca.pem")) as client:
            with pytest.raises(errors.SignInRefused):
                ask(client)  # the authority does not know this cluster yet
            keeper.federated = "assertion-of-the-cluster"
            ask(client)
            keeper.good.clear()
            ask(client)
        assert keeper.issued == ["token-1", "token-2"]
        assert keeper.forms[-1]["client_assertion"] == "assertion-of-the-cluster"


def test_azure_s_managed_identity_is_asked_where_the_platform_says(monkeypatch):
    answer = {"access_token": "token-of-the-platform", "expires_on": "4102444800", "token_type": "Bearer"}
    with scripted(Answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())) as platform:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{platform.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header-of-the-platform")
        with scripted(Answer(204)) as server:
            url = server.url.removesuffix("/v2")
            with archive(url, {"kind": "azure", "credential": "managed_identity"}) as client:
                ask(client)
            assert server.requests[0].headers["authorization"] == "Bearer token-of-the-platform"
        assert platform.requests[0].headers["x-identity-header"] == "header-of-the-platform"
        asked = dict(parse_qsl(urlsplit(platform.requests[0].path).query))
        assert asked["resource"] == "https://dicom.healthcareapis.azure.com"


@pytest.mark.parametrize(
    "auth",
    [
        {"credential": "client_secret", "tenant_id": "t", "client_id": "c"},
        {"credential": "client_secret", "client_id": "c", "client_secret": "s"},
        {"credential": "managed_identity", "client_secret": "s"},
    ],
)
def test_azure_s_options_belong_together(auth):
    with pytest.raises(ValidationError):
        Archive.model_validate({"url": "https://x", "auth": {"kind": "azure", **auth}})


def key_file(folder: Path, token_uri: str) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "account.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "gateway@p.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": token_uri,
            }
        )
    )
    return file


def test_google_s_service_account_signs_in(tmp_path):
    with keeping(Keeper()) as keeper:
        auth = {"kind": "google", "key_file": str(key_file(tmp_path, f"{keeper.url}/token"))}
        with archive(keeper.url, auth) as client:
            ask(client)
            keeper.good.clear()
            ask(client)
            assert keeper.issued == ["token-1", "token-2"]
            assert "assertion" in keeper.forms[0]
            keeper.good.clear()
            keeper.status = 400
            with pytest.raises(errors.SignInRefused) as caught:
                ask(client)
        assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_a_key_file_that_is_none_is_a_fault_of_the_configuration(tmp_path, content):
    file = tmp_path / "account.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(errors.ConfigError, match=r"auth\.key_file"):
        archive("https://x", {"kind": "google", "key_file": str(file)})


def test_aws_s_signature_is_what_the_service_computes(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "AWS_SESSION_TOKEN": "session",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    stored = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.4"]}}]}}
    body = Answer(200, {"Content-Type": "application/dicom+json"}, json.dumps(stored).encode())
    auth = {"kind": "aws", "region": "eu-west-1"}
    with scripted(Answer(204), body) as server, archive(server.url.removesuffix("/v2"), auth) as client:
        ask_with = client.studies(PatientName="a,b*c/d(e)~f g\u00e9", fields=["StudyDate"])
        assert list(ask_with) == []
        client.store([Held(b"x" * 200_000, "1.2", "1.4", "1.2", "1.3")])
        for request in server.requests:
            assert request.headers["x-amz-security-token"] == "session"
            assert abs(signed_at(request) - datetime.now(UTC)) < timedelta(minutes=5)
            assert request.headers["authorization"].endswith(f"Signature={signature(request, 'wJalrXUtnFEMI')}")


def signed_at(request):
    return datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def signature(request, secret):
    """Compute Signature Version 4 of a request as it arrived, from AWS's description of it."""
    parts = urlsplit(request.path)
    pairs = sorted(
        (quote(key, safe="-_.~"), quote(value, safe="-_.~"))
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names)
    digest = hashlib.sha256(request.body).hexdigest()
    assert request.headers["x-amz-content-sha256"] == digest
    canonical = "\n".join(
        [
            request.method,
            parts.path,
            "&".join(f"{key}={value}" for key, value in pairs),
            *(f"{name}:{request.headers[name].strip()}" for name in names),
            "",
            ";".join(names),
            digest,
        ]
    )
    stamp = request.headers["x-amz-date"]
    scope = f"{stamp[:8]}/eu-west-1/medical-imaging/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def test_without_credentials_of_aws_the_configuration_is_at_fault(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for profile in (None, "nobody"):
        with pytest.raises(errors.ConfigError, match=r"auth\.aws_profile"):
            archive("https://x", {"kind": "aws", "region": "eu-west-1", "aws_profile": profile})


@pytest.mark.parametrize(
    ("kind", "module", "more"),
    [("azure", "azure.identity", {}), ("google", "google.auth", {}), ("aws", "botocore.auth", {"region": "r"})],
)
def test_a_cloud_without_its_extra_says_what_to_install(monkeypatch, kind, module, more):
    monkeypatch.setitem(sys.modules, module, None)  # as the import system marks what is not there
    with pytest.raises(errors.ConfigError, match=rf"pip install 'dicom-gateway\[{kind}\]'"):
        archive("https://x", {"kind": kind, **more})


def test_the_library_can_be_given_a_sign_in_of_its_own():
    token = Refreshing(lambda: Token("t0ken", 60))
    with scripted(Answer(204)) as server, Client(server.url, auth=token) as client:
        ask(client)
        assert server.requests[0].headers["authorization"] == "Bearer t0ken"
