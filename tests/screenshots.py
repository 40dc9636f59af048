"""Take the pictures of docs/images: a gateway with made-up traffic in a browser; run it as a module in tests/."""

import math
import tempfile
import time
from pathlib import Path

import dcmtk
from admin_page import AdminPage, admin
from embedded_archive import instance
from gateway_process import ROOT, GatewayProcess
from playwright.sync_api import sync_playwright
from processes import await_true, free_port

from gateway.embedded.server import EmbeddedArchive
from gateway.recent import Minute, Recent

IMAGES = ROOT / "docs" / "images"
CALLERS = ("CT01", "MR02", "US03")


def files(folder: Path, study: str, count: int, **values: object) -> list[Path]:
    paths = [folder / f"{study}-{number}{len(values)}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(instance(study, f"{study}.1", f"{study}.1.{number}", **values))
    return paths


def traffic(gateway: GatewayProcess, page: AdminPage, folder: Path) -> None:
    """Bring about one study of each state."""
    port = gateway.port
    for number, caller in enumerate(CALLERS * 2):
        study = f"1.2.826.0.1.3680043.10.511.{4117 + 31 * number}.{20 + number}"
        dcmtk.storescu(port, *files(folder, study, 2 + number), calling=caller)
    await_true(lambda: "sent" in gateway.log and not page.metrics("dicom_gateway_outbox_instances")["main", "todo"])
    twice = "1.2.826.0.1.3680043.10.511.4471.33"
    dcmtk.storescu(port, *files(folder, twice, 1), called="DIRECT", calling="US03")
    dcmtk.storescu(port, *files(folder, twice, 1, StudyDescription="corrected"), calling="US03")
    for number, caller in enumerate(CALLERS[:2]):
        study = f"1.2.826.0.1.3680043.10.511.{5117 + 31 * number}.{20 + number}"
        dcmtk.storescu(port, *files(folder, study, 3), called="CLOUD", calling=caller)
    page.post(f"/outbox/hold?study={study}&archive=cloud")
    dcmtk.echoscu(port, calling="NEWSCANNER")
    dcmtk.echoscu(port, calling="MR02", called="GATEWY")
    await_true(lambda: "set aside" in gateway.log)


def an_hour(gateway: GatewayProcess) -> None:
    now = int(time.time() // 60)
    with Recent(Path(gateway.config["spool"]["folder"]) / "recent.db") as memory:
        for back in range(1, 60):
            received = max(0, round(90 + 70 * math.sin(back / 6) + 25 * math.sin(back * 1.7)))
            archived = 0 if 20 < back < 27 else received + (70 if 15 < back <= 20 else 0)
            memory.note_minute(Minute(now - back, received, archived, received * 525_000))


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, EmbeddedArchive(Path(name) / "main") as archive:
        folder = Path(name)
        peers = {title: {"addresses": ["127.0.0.1"], "allow": ["echo", "store"]} for title in CALLERS}
        viewer = {"host": "127.0.0.1", "port": free_port(), "allow": ["echo", "find", "move"]}
        gateway = GatewayProcess(
            folder / "gateway",
            admin=admin(),
            archives={
                "main": {"url": archive.url, "profile": "embedded"},
                "cloud": {"url": f"http://127.0.0.1:{free_port()}/v2", "profile": "azure"},
            },
            ae_titles={
                "GATEWAY": {"archive": "main", "acknowledge": "spooled"},
                "DIRECT": {"archive": "main"},
                "CLOUD": {"archive": "cloud", "acknowledge": "spooled"},
            },
            peers={**peers, "VIEWER": viewer},
        )
        with gateway, sync_playwright() as playwright:
            page = AdminPage(gateway)
            await_true(lambda: "listening" in gateway.log)
            traffic(gateway, page, folder)
            an_hour(gateway)
            chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            for picture, width, height, scheme in (("status", 1200, 1180, "light"), ("phone", 390, 1000, "dark")):
                tab = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                tab.goto(page.url)
                tab.screenshot(path=IMAGES / f"{picture}.png")
            chromium.close()


if __name__ == "__main__":
    main()
