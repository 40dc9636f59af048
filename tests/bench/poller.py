"""Forward what Orthanc receives as fast as its plug-in can: poll /changes, two synchronous STOW jobs at a time."""

import queue
import sys
import threading
import time

import httpx

_AT_ONCE = 200  # instances per job at most: each job takes half a second at least
_JOBS = 2
_PAUSE = 0.02  # seconds


def _forward(root: str, waiting: "queue.Queue[str]") -> None:
    with httpx.Client(base_url=root, trust_env=False, timeout=120) as client:
        while True:
            resources = [waiting.get()]
            while len(resources) < _AT_ONCE and not waiting.empty():
                resources.append(waiting.get())
            job = {"Resources": resources, "Synchronous": True}
            client.post("/dicom-web/servers/archive/stow", json=job).raise_for_status()


def main(root: str) -> None:
    waiting: queue.Queue[str] = queue.Queue()
    for _ in range(_JOBS):
        threading.Thread(target=_forward, args=(root, waiting), daemon=True).start()
    since = 0
    with httpx.Client(base_url=root, trust_env=False, timeout=60) as client:
        while True:
            changes = client.get(f"/changes?since={since}&limit=100").raise_for_status().json()
            since = changes["Last"]
            for change in changes["Changes"]:
                if change["ChangeType"] == "NewInstance":
                    waiting.put(change["ID"])
            if changes["Done"]:
                time.sleep(_PAUSE)


if __name__ == "__main__":
    main(sys.argv[1])
