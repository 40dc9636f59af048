"""Connect to the archives of the configuration, and keep what is retrieved from them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gateway import metrics
from gateway.cache import Cache, RecentObjects
from gateway.config import EMBEDDED, Archive, Config
from gateway.dicomweb.client import Changed, Client
from gateway.dicomweb.sign_in import sign_in
from gateway.metrics import Recorder
from gateway.translate.profiles import PROFILES


def connect(
    name: str,
    archive: Archive,
    recorder: Recorder | None = None,
    *,
    connections: int | None = None,
    changed: Changed = lambda _uids: None,
) -> Client:
    """Make a client of an archive; raises ConfigError when a file it needs cannot be read."""
    return Client(
        archive.url,
        name=name,
        profile=PROFILES[archive.profile],
        auth=sign_in(name, archive),
        headers={key: value.get_secret_value() for key, value in archive.headers.items()},
        ca=archive.ca,
        certificate=archive.certificate,
        key=archive.key,
        connections=connections or archive.connections,
        connect_timeout=archive.connect_timeout,
        read_timeout=archive.read_timeout,
        proxy=archive.proxy,
        observe=partial(_note_request, recorder, name),
        changed=changed,
    )


def embedded_archive(config: Config) -> Archive | None:
    """Describe the embedded archive as another process reaches it, None while nobody knows its port."""
    settings = config.embedded
    if not settings.port:
        return None
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return Archive(url=f"http://{host}:{settings.port}/v2", profile="embedded")


def cache_folder(config: Config) -> Path:
    """Say where retrieved instances are kept."""
    return config.spool.folder / "cache"


def cache(config: Config, *, size: int | None = None) -> Cache:
    """Open the cache of retrieved instances, with another `size` than the configuration's where one is given."""
    wanted = config.retrieve.cache
    size = wanted.size if size is None else size
    return Cache(cache_folder(config), size, wanted.seconds, high_water=config.spool.high_water)


def recent_objects(
    config: Config, archives: Mapping[str, Archive], recorder: Recorder
) -> Mapping[str, RecentObjects]:
    """Give what is kept of each archive's instances; those of the embedded one are on this disk already."""
    kept, none = cache(config), cache(config, size=0)
    return {
        name: RecentObjects(none if name == EMBEDDED else kept, name, partial(_note_retrieved, recorder, name))
        for name in archives
    }


def _note_request(recorder: Recorder | None, archive: str, operation: str, outcome: str, seconds: float) -> None:
    if recorder is None:
        return  # a command asks, not the gateway
    recorder.add(metrics.REQUESTS, archive, operation, outcome)
    recorder.observe(metrics.REQUEST_SECONDS, archive, operation, seconds=seconds)


def _note_retrieved(recorder: Recorder, archive: str, outcome: str, size: int) -> None:
    recorder.add(metrics.RETRIEVED, archive, outcome)
    recorder.add(metrics.RETRIEVED_BYTES, archive, outcome, amount=size)
