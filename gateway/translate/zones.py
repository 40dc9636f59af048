"""Times of an entity in the time zone of the identifier, where timezone query adjustment was negotiated.

PS3.4 C.2.2.2.1.3: Timezone Offset From UTC (0008,0201) says in which zone TM values, their dates and DT values
without an offset are meant. An entity that does not say its zone is left as it is.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from gateway.translate import moments
from gateway.translate.attributes import read_json, read_tag

OFFSET: Final = 0x00080201


def localised(model: Mapping[str, Any], minutes: int) -> dict[str, Any]:
    """Give the entity with its times as they were on clocks `minutes` east of UTC."""
    changed = dict(model)
    own = moments.read_offset(_text(model, OFFSET))
    if own is None:
        return changed
    for name in model:
        tag = read_tag(name)
        if tag and keyword_for_tag(tag).endswith("Time"):
            changed |= _moved(model, tag, minutes - own)
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
    return changed | {f"{OFFSET:08X}": {"vr": "SH", "Value": [offset]}}


def _text(model: Mapping[str, Any], tag: int | None) -> str:
    attribute = read_json(tag, model.get(f"{tag:08X}")) if tag else None
    return str(attribute.values[0]).strip() if attribute and len(attribute.values) == 1 else ""


def _moved(model: Mapping[str, Any], tag: int, shift: int) -> dict[str, Any]:
    """Move a TM, and the DA beside it, by `shift` minutes; give a DT its offset."""
    keyword = keyword_for_tag(tag)
    text = _text(model, tag)
    if keyword.endswith("DateTime"):
        has_offset = not text or text[-5:-4] in ("+", "-")
        return {} if has_offset else {f"{tag:08X}": {"vr": "DT", "Value": [text + _text(model, OFFSET)]}}
    moment = moments.read_time(text)
    if moment is None:
        return {}
    days, clock = divmod(moment.first + shift * moments.MINUTE, moments.DAY)
    second, fraction = divmod(clock, 1_000_000)
    time = f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}" + (f".{fraction:06}" if fraction else "")
    moved = {f"{tag:08X}": {"vr": "TM", "Value": [time]}}
    partner = tag_for_keyword(keyword.removesuffix("Time") + "Date")
    day = moments.read_date(_text(model, partner))
    if partner and day and 1 <= day.first + days <= date.max.toordinal():
        other = date.fromordinal(day.first + days)
        moved[f"{partner:08X}"] = {"vr": "DA", "Value": [f"{other.year:04}{other.month:02}{other.day:02}"]}
    return moved
