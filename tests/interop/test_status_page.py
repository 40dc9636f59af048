"""The status page in a real browser: what an administrator sees and does there."""

from collections.abc import Iterator
from pathlib import Path

import dcmtk
import pydicom.data
import pytest
import yaml
from admin_page import AdminPage, admin
from gateway_process import GatewayProcess
from playwright.sync_api import Browser, Page, expect, sync_playwright
from processes import await_true, free_port

from gateway.config import parse
from gateway.embedded.server import EmbeddedArchive

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
PATIENT = ("CompressedSamples", "1CT1")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not run as root
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def faults() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, faults: list[str]) -> Iterator[Page]:
    """Give a tab that notes every error on its console and every request to somewhere else."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.set_default_timeout(20_000)
    tab.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda one: None if one.url.startswith("http://127.0.0.1:") else faults.append(one.url))
    yield tab
    tab.close()
    assert faults == []


@pytest.fixture
def archive_port() -> int:
    return free_port()


@pytest.fixture
def gateway(tmp_path: Path, archive_port: int) -> Iterator[GatewayProcess]:
    far = {"url": f"http://127.0.0.1:{archive_port}/v2", "profile": "embedded"}
    peers = {"DCMTK": {}, "GONE": {"host": "127.0.0.1", "port": free_port()}}
    running = GatewayProcess(
        tmp_path / "gateway",
        admin=admin(),
        archives={"far": {**far, "delivery": {"retry_first": 0.2, "retry_longest": 0.5}}},
        ae_titles={"GATEWAY": {"archive": "far", "acknowledge": "spooled"}, "DIRECT": {"archive": "far"}},
        peers=peers,
    )
    with running:
        await_true(lambda: "listening" in running.log, what="every process")
        yield running


def row(page: Page, section: str, text: str):
    return page.locator(f"#{section} tbody tr", has_text=text)


def test_a_study_goes_from_received_to_archived_while_one_looks(
    gateway: GatewayProcess, archive_port: int, page: Page, tmp_path: Path
) -> None:
    page.goto(AdminPage(gateway).url)
    expect(page.locator("#health h2")).to_have_text("Ready")
    expect(page.locator("#studies")).to_contain_text("None yet.")
    assert dcmtk.storescu(gateway.port, CT).statuses == [0x0000]
    study = row(page, "studies", STUDY)
    expect(study.locator(".badge")).to_have_text("received")
    expect(page.locator("#archive-far")).to_contain_text("delivery")
    expect(row(page, "peers", "DCMTK")).to_contain_text("s ago")
    with EmbeddedArchive(tmp_path / "far", port=archive_port):
        # the circuit is open: it may rest for a minute
        expect(study.locator(".badge")).to_have_text("archived", timeout=75_000)
        expect(page.locator("#throughput svg rect.archived")).to_have_count(1)
        await_true(lambda: AdminPage(gateway).findings()["archive far"][0] == "ok")
        assert dcmtk.storescu(gateway.port, CT, called="DIRECT").statuses == [0x0000]
        expect(row(page, "studies", STUDY)).to_have_count(2)
    assert not [word for word in PATIENT if word in page.content()]


def test_the_operator_holds_releases_and_retries(
    gateway: GatewayProcess, archive_port: int, page: Page, tmp_path: Path
) -> None:
    assert dcmtk.storescu(gateway.port, CT).statuses == [0x0000]
    page.goto(AdminPage(gateway).url)
    study, said = row(page, "studies", STUDY), page.locator("#said")
    study.get_by_role("button", name="hold").click()
    expect(said).to_have_text("hold: 1 instance")
    expect(study.locator(".badge")).to_have_text("held")
    study.get_by_role("button", name="release").click()
    expect(said).to_have_text("release: 1 instance")
    expect(study.locator(".badge")).to_have_text("received")
    study.get_by_role("button", name="retry").click()
    expect(said).to_contain_text("retry: ")
    whole = page.locator("#archive-far")
    whole.get_by_role("button", name="hold").click()
    expect(study.locator(".badge")).to_have_text("held")
    expect(whole).to_contain_text("on hold")
    with EmbeddedArchive(tmp_path / "far", port=archive_port):
        expect(study.locator(".badge")).to_have_text("held")
        whole.get_by_role("button", name="release").click()
        # the circuit is open: it may rest for a minute
        expect(study.locator(".badge")).to_have_text("archived", timeout=75_000)
    assert "event=operator" in gateway.log or "operator " in gateway.log


def test_the_echo_button_says_whether_a_peer_answers(gateway: GatewayProcess, page: Page, tmp_path: Path) -> None:
    page.goto(AdminPage(gateway).url)
    row(page, "peers", "GONE").get_by_role("button", name="echo").click()
    expect(page.locator("#said")).to_have_text("destination GONE: cannot be connected: Connection refused")
    with dcmtk.storescp(tmp_path / "scp", title="GONE", port=gateway.config["peers"]["GONE"]["port"]):
        row(page, "peers", "GONE").get_by_role("button", name="echo").click()
        expect(page.locator("#said")).to_contain_text("GONE answers in")


def test_a_refused_caller_is_shown_with_lines_that_let_it_in(gateway: GatewayProcess, page: Page) -> None:
    assert dcmtk.echoscu(gateway.port, calling="KNOCKING").rejected
    assert dcmtk.echoscu(gateway.port, calling="KNOCKING").rejected
    page.goto(AdminPage(gateway).url)
    refused = row(page, "refused", "KNOCKING")
    expect(refused).to_contain_text("calling AE title is not known")
    lines = yaml.safe_load(refused.locator("pre").inner_text())
    assert parse(lines, "test").peers["KNOCKING"].addresses == ["127.0.0.1"]


def test_the_page_fits_a_phone_and_needs_no_script_to_be_read(gateway: GatewayProcess, browser: Browser) -> None:
    assert dcmtk.storescu(gateway.port, CT).statuses == [0x0000]
    assert dcmtk.echoscu(gateway.port, calling="KNOCKING").rejected
    phone = browser.new_page(viewport={"width": 360, "height": 740}, java_script_enabled=False)
    phone.goto(AdminPage(gateway).url)
    expect(phone.locator("#studies")).to_contain_text(STUDY)
    phone.close()
    phone = browser.new_page(viewport={"width": 360, "height": 740})
    phone.goto(AdminPage(gateway).url)
    phone.locator("summary").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    expect(phone.locator("#configuration pre")).to_contain_text("unknown_peers: reject")
    phone.close()


def test_the_page_says_when_the_gateway_is_gone(gateway: GatewayProcess, page: Page, faults: list[str]) -> None:
    page.goto(AdminPage(gateway).url)
    expect(page.locator("#silence")).to_be_hidden()
    gateway.stop()
    expect(page.locator("#silence")).to_be_visible()
    assert all("ERR_" in fault or "htmx" in fault for fault in faults)
    faults.clear()
