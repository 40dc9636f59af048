"""Give a stored instance in Explicit VR Little Endian, as far as the service goes with that."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.errors import TranscodingError
from gateway.translate.part10 import file_header, read_file_meta
from gateway.translate.transcode import convert

_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_LARGEST: Final = 100 * 1024 * 1024


@contextmanager
def explicit(path: Path) -> Iterator[Path]:
    """Give a temporary file with the converted instance; raises TranscodingError, above 100 MB too."""
    if path.stat().st_size > _LARGEST:
        raise TranscodingError("the instance is larger than the service transcodes")
    with tempfile.TemporaryDirectory() as folder, path.open("rb") as source:
        meta = read_file_meta(source)
        source.seek(meta.offset)
        converted = Path(folder) / "converted"
        with converted.open("wb") as target:
            target.write(file_header(meta.sop_class, meta.sop_instance, _EXPLICIT))
            convert(source, meta.transfer_syntax, target, _EXPLICIT)
        yield converted
