"""Who may see the status page, and what it does not tell."""

import base64
import ssl
import subprocess
import sys
from pathlib import Path

import dcmtk
import httpx
import pytest
import trustme
import yaml
from admin_page import FROM_PAGE, AdminPage, admin
from gateway_process import ROOT, GatewayProcess
from processes import await_true, free_port

from gateway.admin import password
from gateway.config import parse
from gateway.errors import ConfigError

SECRET = "correct horse battery staple"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "admin-password"
    path.write_text(password.hashed(SECRET) + "\n")
    return path


def running(folder: Path, **sections: object) -> GatewayProcess:
    return GatewayProcess(folder / "gateway", **{"admin": admin(), **sections})


def test_a_password_guards_all_but_the_health(tmp_path: Path, password_file: Path) -> None:
    with running(tmp_path, admin=admin(password_file=str(password_file))) as gateway:
        page = AdminPage(gateway)
        for path in ("/", "/live", "/metrics", "/static/page.css"):
            refused = page.get(path)
            assert refused.status_code == 401, path
            assert refused.headers["WWW-Authenticate"].startswith("Basic ")
            assert page.get(path, auth=("admin", SECRET)).status_code == 200, path
        assert page.get("/", auth=("admin", "wrong")).status_code == 401
        assert page.get("/", headers={"Authorization": "Basic %"}).status_code == 401
        assert page.post("/outbox/retry?archive=embedded").status_code == 401
        assert page.post("/outbox/retry?archive=embedded", auth=("admin", SECRET)).status_code == 200
        assert page.get("/health/live").status_code == 200
        assert page.get("/health/ready").status_code == 200
        shown = page.get("/", auth=("admin", SECRET)).text
    everything = shown + gateway.log
    assert SECRET not in everything
    assert base64.b64encode(f"admin:{SECRET}".encode()).decode() not in everything
    assert password_file.read_text().strip().split(":")[-1] not in everything


def test_another_sites_page_cannot_have_the_browser_change_anything(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        page, action = AdminPage(gateway), "/outbox/retry?archive=embedded"
        assert page.post(action).status_code == 200
        for headers in (
            {},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {**FROM_PAGE, "Origin": "http://evil.example"},
            {**FROM_PAGE, "Origin": "null"},
            {**FROM_PAGE, "Sec-Fetch-Site": "cross-site"},
            {**FROM_PAGE, "Sec-Fetch-Site": "same-site"},
        ):
            assert page.post(action, headers=headers).status_code == 403, headers
        assert page.get(action).status_code == 405
        preflight = httpx.options(page.url + action, headers={"Origin": "http://evil.example"}, trust_env=False)
        assert preflight.status_code == 403
        assert "access-control-allow-origin" not in preflight.headers


def test_a_page_without_password_answers_to_this_machines_own_names_only(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        page = AdminPage(gateway)
        port = gateway.config["admin"]["port"]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
            assert page.get("/", headers={"Host": host}).status_code == 200, host
        for host in (f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
            assert page.get("/", headers={"Host": host}).status_code in (400, 421), host


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "gateway.example.org"])
def test_other_machines_need_a_password_or_a_certificate(host: str, password_file: Path) -> None:
    tls = {"certificate": "a.pem", "key": "a.key"}
    for section in ({}, {"tls": tls}):
        with pytest.raises(ConfigError) as caught:
            parse({"admin": {"host": host, **section}}, "test")
        assert "password_file" in str(caught.value)
    for section in ({"password_file": str(password_file)}, {"tls": {**tls, "ca": "ca.pem"}}):
        assert parse({"admin": {"host": host, **section}}, "test").admin.host == host


def test_only_a_client_with_a_certificate_of_the_configured_authority_gets_in(tmp_path: Path) -> None:
    ours, other = trustme.CA(), trustme.CA()
    files = {name: tmp_path / name for name in ("server.pem", "server.key", "ca.pem")}
    server = ours.issue_cert("127.0.0.1")
    server.cert_chain_pems[0].write_to_path(files["server.pem"])
    server.private_key_pem.write_to_path(files["server.key"])
    ours.cert_pem.write_to_path(files["ca.pem"])
    tls = {"certificate": str(files["server.pem"]), "key": str(files["server.key"]), "ca": str(files["ca.pem"])}
    with running(tmp_path, admin=admin(tls=tls)) as gateway:
        url = AdminPage(gateway).url.replace("http:", "https:")
        for authority, allowed in ((ours, True), (other, False), (None, False)):
            context = ssl.create_default_context(cafile=files["ca.pem"])
            if authority is not None:
                authority.issue_cert("client@example.org").configure_cert(context)
            with httpx.Client(verify=context, trust_env=False) as client:
                if allowed:
                    assert client.get(url).status_code == 200
                else:
                    with pytest.raises(httpx.TransportError):
                        client.get(url)


def test_the_page_shows_the_configuration_without_its_secrets(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAR_PASSWORD", "s3cret-password")
    monkeypatch.setenv("FAR_KEY", "s3cret-key")
    far = {
        "url": f"http://127.0.0.1:{free_port()}/v2",
        "auth": {"kind": "basic", "username": "gateway", "password": "${FAR_PASSWORD}"},
        "headers": {"X-Api-Key": "${FAR_KEY}"},
        "proxy": "http://user:s3cret-proxy@127.0.0.1:9",
    }
    with running(tmp_path, archives={"far": far}, ae_titles={"GATEWAY": {"archive": "far"}}) as gateway:
        page = AdminPage(gateway)
        await_true(lambda: page.findings()["archive far"][0] == "warning", what="the probe")
        everything = page.get("/").text + page.get("/metrics").text + page.get("/health/ready").text + gateway.log
    assert "X-Api-Key" in everything
    assert "http://***@127.0.0.1:9" in everything
    assert "s3cret" not in everything


def test_nothing_that_a_caller_names_itself_becomes_markup(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        page = AdminPage(gateway)
        assert dcmtk.echoscu(gateway.port, calling="<b>&\"'x").rejected
        await_true(lambda: "&lt;b&gt;" in page.get("/").text)
        assert "<b>&\"'x" not in page.get("/").text
        policy = page.get("/").headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_a_port_that_is_taken_and_a_file_without_a_hash_are_named_at_the_start(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text(SECRET)
    with running(tmp_path) as gateway:
        cases = {
            "admin: cannot listen: Address already in use": {"port": gateway.config["admin"]["port"]},
            "admin.password_file": {"port": 0, "password_file": str(plain)},
        }
        for words, section in cases.items():
            config = tmp_path / "config.yaml"
            spool = {"folder": str(tmp_path / "other")}
            listen = {"host": "127.0.0.1", "port": 0}
            config.write_text(yaml.safe_dump({"admin": section, "spool": spool, "listen": listen}))
            done = subprocess.run(
                [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 2, done.stderr
            assert words in done.stderr
            assert SECRET not in done.stdout + done.stderr
