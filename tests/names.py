"""Real names in the character sets that hospitals use, from pydicom's files."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from gateway.translate.encoding import EXPLICIT, header

FILES = Path(pydicom.__file__).parent / "data" / "charset_files"
NAMES = {
    "chrArab": "قباني^لنزار",
    "chrFren": "Buc^Jérôme",
    "chrFrenMulti": "Buc^Jérôme",
    "chrGerm": "Äneas^Rüdiger",
    "chrGreek": "Διονυσιος",
    "chrH31": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw": "שרון^דבורה",
    "chrI2": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrJapMulti": "やまだ^たろう",
    "chrJapMultiExplicitIR6": "やまだ^たろう",
    "chrKoreanMulti": "김희중",
    "chrRuss": "Люкceмбypг",  # noqa: RUF001  so it is in the file
    "chrX1": "Wang^XiaoDong=王^小東",
    "chrX2": "Wang^XiaoDong=王^小东",
}
ALL = sorted(NAMES)
# Escape sequences, UTF-8 and Latin 1 are known without (0008,0005); the peer's default is for the others.
SELF_EXPLANATORY = ["chrFren", "chrFrenMulti", "chrGerm", "chrH31", "chrI2", "chrJapMulti", "chrKoreanMulti", "chrX1"]


def read(name: str) -> Dataset:
    return pydicom.dcmread(FILES / f"{name}.dcm", force=True)


def raw_name(dataset: Dataset) -> bytes:
    """Give Patient Name as the sender wrote it, padded."""
    data = bytes(dataset.get_item("PatientName").value)
    return data + b" " * (len(data) % 2)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Encode an element in Explicit VR Little Endian."""
    return header(EXPLICIT, tag, vr, len(value)) + value
