"""Give a stored instance in Explicit VR Little Endian, as far as the service goes with that."""

import tempfile
from pathlib import Path
from typing import BinaryIO, Final, cast

from gateway.embedded.accept import EXPLICIT
from gateway.errors import DataSetError, TranscodingError
from gateway.translate.part10 import file_header, read_file_meta
from gateway.translate.transcode import convert

_LARGEST: Final = 100 * 1024 * 1024


def explicit(path: Path) -> BinaryIO:
    """Return a file without a name that holds the converted instance; raises TranscodingError, above 100 MB too."""
    if path.stat().st_size > _LARGEST:
        raise TranscodingError("the instance is larger than the service transcodes")
    target = cast("BinaryIO", tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115 - it is the caller's to read and close
    try:
        with path.open("rb") as source:
            meta = read_file_meta(source)
            source.seek(meta.offset)
            target.write(file_header(meta.sop_class, meta.sop_instance, EXPLICIT))
            convert(source, meta.transfer_syntax, target, EXPLICIT)
        target.seek(0)
    except DataSetError as error:
        target.close()
        raise TranscodingError("the stored instance cannot be read") from error
    except BaseException:
        target.close()
        raise
    return target
