"""Make file names from a template such as `{PatientID}/{StudyDate}/{SOPInstanceUID}.dcm`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError

from gateway.errors import DataSetError

_FIELD = re.compile(r"\{(\w*)\}")
_UNSAFE = re.compile(r"[^\w .,^=+@-]")
_LONGEST = 100  # characters of one value in a name


class TemplateError(ValueError):
    """Report what is wrong with a template."""


@dataclass(frozen=True, slots=True)
class Template:
    """Hold a template; its fields are keywords of elements, and those named in `others`."""

    text: str
    others: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in self.fields:
            if name not in self.others and tag_for_keyword(name) is None:
                raise TemplateError(f"{{{name}}} is not the keyword of an element")
        if "{" in _FIELD.sub("", self.text) or "}" in _FIELD.sub("", self.text):
            raise TemplateError("a brace stands alone")

    @property
    def fields(self) -> list[str]:
        """Give the names in braces."""
        return _FIELD.findall(self.text)

    @property
    def folder(self) -> Path:
        """Give the folder that every file made from this template is in."""
        return Path(self.text.partition("{")[0] + "x").parent

    def path(self, values: Mapping[str, str]) -> Path:
        """Fill in the values; none of them can lead out of the folder that the template names."""
        return Path(_FIELD.sub(lambda match: _safe(values.get(match[1], "")), self.text))

    def path_of(self, file: Path) -> Path:
        """Fill in the attributes of a Part 10 file; raises DataSetError when it is none."""
        keywords = [name for name in self.fields if name not in self.others]
        try:
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=keywords)
        except InvalidDicomError as error:
            raise DataSetError("the retrieved instance is not a Part 10 file") from error
        return self.path({keyword: str(dataset.get(keyword, "")) for keyword in keywords})


def _safe(value: str) -> str:
    clean = _UNSAFE.sub("_", value)[:_LONGEST].strip(" .")
    return clean or "_"
