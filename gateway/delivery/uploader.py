"""Store instances in an archive and judge what came of each: for the delivery, and for a peer that waits."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from gateway.delivery.prepared import Item, prepared
from gateway.dicomweb.client import Client, Outcome, Upload
from gateway.errors import AnswerUnreadable, DataSetError, GatewayError, InstanceRefused, NotFound, SpoolBroken
from gateway.outbox import Duplicates
from gateway.status import SUCCESS
from gateway.translate.part10 import read_file_meta
from gateway.translate.stow_outcomes import Disposition, Verdict, failed, refused, stored

_DUPLICATE = 0x0111  # Duplicate SOP Instance (PS3.7 C.5)
_LONGEST_HEADER = 1 << 17


class Uploader:
    """Store instances; `scratch` names files for what has to be written anew.

    A duplicate is read back and compared, for it is most often our own, from an attempt whose answer was lost; what
    becomes of another object under the UIDs of ours, `duplicates` says.
    """

    def __init__(self, client: Client, scratch: Callable[[], Path], *, duplicates: Duplicates = "reject") -> None:
        self._client = client
        self._scratch = scratch
        self._duplicates = duplicates

    def correlated(self, request_id: str) -> "Uploader":
        """Give this uploader with requests that carry an X-Request-ID."""
        return Uploader(self._client.correlated(request_id), self._scratch, duplicates=self._duplicates)

    def send(self, items: Sequence[Item]) -> list[Verdict]:
        """Store the items in one request and judge each, in order; never raises for what an archive does.

        A request that is refused as a whole, or lacks a file, is repeated item by item, since one has spoilt it for
        all.
        """
        if len(items) > 1 and any(item.replaces for item in items):
            return self._one_by_one(items)
        try:
            with prepared(items, self._client.profile, self._scratch) as uploads:
                if items[0].replaces:
                    return [self._overwrite(uploads[0])]
                outcomes = self._client.store(uploads)
                return [self._judge(*known) for known in zip(uploads, outcomes, strict=True)]
        except OSError as error:
            verdict = failed(SpoolBroken(f"an instance cannot be read or converted: {error.strerror}"))
            again = True
        except GatewayError as error:
            verdict = failed(error)
            again = verdict.disposition is Disposition.SET_ASIDE or isinstance(error, SpoolBroken)
        return self._one_by_one(items) if again and len(items) > 1 else [verdict] * len(items)

    def _one_by_one(self, items: Sequence[Item]) -> list[Verdict]:
        return [verdict for item in items for verdict in self.send([item])]

    def _judge(self, upload: Upload, outcome: Outcome) -> Verdict:
        verdict = self._verdict(outcome)
        if verdict.disposition is not Disposition.DUPLICATE:
            return verdict
        try:
            if self._same(upload):
                return Verdict(Disposition.DONE, SUCCESS, "the archive had it already")
            return self._overwrite(upload) if self._duplicates == "replace" else self._conflict()
        except GatewayError as error:
            return failed(error)

    def _overwrite(self, upload: Upload) -> Verdict:
        """Put ours in the place of the archive's; ours stays in the spool until the archive has it."""
        deletes = self._client.profile.overwrite == "delete"
        if deletes:
            with suppress(NotFound):
                self._client.delete(upload.study, upload.series, upload.sop_instance)
        verdict = self._verdict(self._client.store([upload])[0])
        # An archive that does not overwrite may say nothing and keep what it has.
        unsure = verdict.disposition is Disposition.DUPLICATE or (
            verdict.disposition is Disposition.DONE and not deletes
        )
        if not unsure:
            return verdict
        return Verdict(Disposition.DONE, SUCCESS) if self._same(upload) else self._conflict()

    def _verdict(self, outcome: Outcome) -> Verdict:
        if outcome.stored:
            return stored(outcome.warning, self._client.profile.harmless_warnings)
        return refused(self._client.name, outcome.reason, outcome.comment, named=outcome.named)

    def _conflict(self) -> Verdict:
        text = "the archive keeps another object under these UIDs"
        cause = InstanceRefused(self._client.name, _DUPLICATE, text)
        return Verdict(Disposition.SET_ASIDE, _DUPLICATE, text, cause)

    def _same(self, upload: Upload) -> bool:
        """Tell whether the archive's data set is that of the upload, byte for byte."""
        ours = data_set_digest(upload.chunks())
        try:
            with self._client.retrieve(upload.study, upload.series, upload.sop_instance) as instances:
                return any(data_set_digest(instance.chunks) == ours for instance in instances)
        except (NotFound, DataSetError) as error:
            problem = "a duplicate cannot be read back to compare it"
            raise AnswerUnreadable(self._client.name, problem) from error


def data_set_digest(chunks: Iterable[bytes | memoryview]) -> bytes:
    """Compute SHA-256 over a Part 10 file without its header, as the outbox does; raises DataSetError."""
    digest = hashlib.sha256()
    rest = iter(chunks)
    header = bytearray()
    for chunk in rest:
        header += chunk
        if len(header) >= _LONGEST_HEADER:
            break
    digest.update(memoryview(header)[read_file_meta(BytesIO(header)).offset :])
    for chunk in rest:
        digest.update(chunk)
    return digest.digest()
