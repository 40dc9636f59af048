"""Matching as PS3.4 C.2.2.2 reads, written for the tests without a line of the gateway: slow and plain.

It works on pydicom's data sets. Where the standard leaves the manner to the application, it follows what the
conformance statement says: person names by component group, whatever the case; numbers as numbers.
"""

import unicodedata
from datetime import datetime, timedelta, timezone
from fractions import Fraction

LEVELS = ["PATIENT", "STUDY", "SERIES", "IMAGE"]
BELOW_STUDY = {"SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "RequestAttributesSequence"}
BELOW_SERIES = {"SOPInstanceUID", "SOPClassUID", "InstanceNumber", "SliceThickness", "AcquisitionDateTime"}
OF_PATIENT = {"PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"}
NOT_MATCHED = {"QueryRetrieveLevel", "SpecificCharacterSet"}
WILDCARDS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}


def level_of(keyword):
    if keyword in OF_PATIENT:
        return "PATIENT"
    if keyword in BELOW_SERIES:
        return "IMAGE"
    return "SERIES" if keyword in BELOW_STUDY else "STUDY"


def matches(identifier, entity, level, *, combined=False, ignored=()):
    """Say whether an entity at a level matches; keys of lower levels and `ignored` ones do not narrow."""
    keys = {
        key.keyword: key
        for key in identifier
        if key.keyword not in NOT_MATCHED
        and key.keyword not in ignored
        and LEVELS.index(level_of(key.keyword)) <= LEVELS.index(level)
    }
    if combined and is_same_range(keys.get("StudyDate"), keys.get("StudyTime")):
        dates, times = keys.pop("StudyDate"), keys.pop("StudyTime")
        if not in_combined_range(str(dates.value), str(times.value), entity):
            return False
    return all(key_matches(key, entity) for key in keys.values())


def texts(element):
    if element is None or element.value is None or element.VR == "SQ":
        return []
    value = element.value
    many = [value] if isinstance(value, (str, int, float)) or not hasattr(value, "__iter__") else list(value)
    if element.VR == "PN":
        many = [value] if type(value).__name__ == "PersonName" else list(value)
    return [str(one).strip(" \0") for one in many]


def key_matches(key, entity):
    element = entity.get(key.keyword) if key.keyword in entity else None
    element = entity[key.keyword] if element is not None else None
    if key.VR == "SQ":
        items = list(key.value)
        if not items or all(is_universal(inner) for inner in items[0]):
            return True
        return element is not None and any(
            all(key_matches(inner, item) for inner in items[0]) for item in element.value
        )
    if is_universal(key):
        return True
    asked = [one for one in texts(key) if one]
    return any(value_matches(key.VR, one, have) for one in asked for have in texts(element) if have)


def is_universal(key):
    if key.VR == "SQ":
        return not key.value or all(is_universal(inner) for inner in key.value[0])
    asked = [one for one in texts(key) if one]
    return not asked or any(set(one) == {"*"} for one in asked)


def value_matches(vr, asked, have):
    if vr == "PN":
        return name_matches(asked, have)
    if vr in ("DA", "TM", "DT"):
        low, high = bounds(vr, asked)
        moment = first_moment(vr, have)
        return moment is not None and (low is None or low <= moment) and (high is None or moment <= high)
    if vr in ("IS", "DS"):
        return number(asked) == number(have)
    if vr in WILDCARDS:
        return glob(asked, have)
    return asked == have


def number(text):
    try:
        return Fraction(text)
    except ValueError:
        return text


def glob(pattern, text):
    """Match `*` and `?` by dynamic programming: row[i] says whether the pattern so far matches text[:i]."""
    row = [True] + [False] * len(text)
    for sign in pattern:
        if sign == "*":
            reached = False
            row = [reached := reached or one for one in row]
        else:
            row = [False] + [row[i] and sign in ("?", text[i]) for i in range(len(text))]
    return row[-1]


def fold(text):
    return "".join(one.casefold() if len(one.casefold()) == 1 else one for one in unicodedata.normalize("NFC", text))


def components(group):
    return group.strip().rstrip("^ ")


def name_matches(asked, have):
    wanted = [components(group) for group in fold(asked).split("=")]
    found = [components(group) for group in fold(have).split("=")]
    if len(wanted) == 1:
        return set(wanted[0]) <= {"*"} or any(group_matches(wanted[0], group) for group in found)
    found += [""] * len(wanted)
    return all(set(one) <= {"*"} or group_matches(one, found[index]) for index, one in enumerate(wanted))


def group_matches(asked, have):
    if "*" not in asked and "?" not in asked:
        return asked == have
    return any(glob(asked, have + "^" * more) for more in range(max(asked.count("^") - have.count("^"), 0) + 1))


def first_moment(vr, text):
    low, _ = moments(vr, text) or (None, None)
    return low


def bounds(vr, asked):
    whole = moments(vr, asked)
    if whole:
        return whole
    for position, sign in enumerate(asked):
        if sign == "-":
            low, high = asked[:position].strip(), asked[position + 1 :].strip()
            ends = [moments(vr, end) if end else (None, None) for end in (low, high)]
            if None not in ends:
                return ends[0][0], ends[1][1]
    raise ValueError(asked)


def moments(vr, text):
    """Give the first and last microsecond that a value may mean, as numbers that compare."""
    if vr == "DT":
        return date_time(text)
    text = text.replace(".", "") if vr == "DA" and text[4:5] == "." else text.replace(":", "")
    text, _, fraction = text.partition(".")
    if not (text + fraction).isdecimal() or len(text) not in {"DA": [8], "TM": [2, 4, 6]}[vr]:
        return None
    form = {"DA": "%Y%m%d", "TM": "%H%M%S"[: len(text)]}[vr]
    try:
        datetime.strptime(text, form)  # noqa: DTZ007
    except ValueError:
        return None
    digits = text + fraction
    return (digits.ljust(12, "0"), digits.ljust(12, "9")) if vr == "TM" else (digits, digits)


def date_time(text):
    zone = timedelta()
    if text[-5:-4] in ("+", "-") and text[-4:].isdecimal():
        hours, minutes = int(text[-4:-2]), int(text[-2:])
        if (text[-5] == "-" and hours > 12) or hours > 14 or minutes > 59:
            return None
        zone = timedelta(hours=hours, minutes=minutes) * (-1 if text[-5] == "-" else 1)
        text = text[:-5]
    text, _, fraction = text.partition(".")
    forms = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    if not (text + fraction).isdecimal() or len(text) not in forms or (fraction and len(text) != 14):
        return None
    try:
        low = datetime.strptime(text, forms[len(text)]).replace(tzinfo=timezone(zone))
        low += timedelta(microseconds=int(fraction.ljust(6, "0") or 0))
    except ValueError:
        return None
    return low, next_moment(low, len(text), fraction) - timedelta(microseconds=1)


def next_moment(low, digits, fraction):
    if digits == 4:
        return low.replace(year=low.year + 1)
    if digits == 6:
        return low.replace(year=low.year + low.month // 12, month=low.month % 12 + 1)
    step = {8: timedelta(days=1), 10: timedelta(hours=1), 12: timedelta(minutes=1), 14: timedelta(seconds=1)}[digits]
    return low + (timedelta(microseconds=10 ** (6 - len(fraction))) if fraction else step)


def is_same_range(dates, times):
    if dates is None or times is None or is_universal(dates) or is_universal(times):
        return False
    asked = str(dates.value), str(times.value)
    if any("-" not in one or "\\" in one for one in asked) or len(texts(dates)) != 1 or len(texts(times)) != 1:
        return False
    return [end is None for end in bounds("DA", asked[0])] == [end is None for end in bounds("TM", asked[1])]


def in_combined_range(dates, times, entity):
    (first_day, last_day), (first_time, last_time) = bounds("DA", dates), bounds("TM", times)
    day = first_moment("DA", str(entity.get("StudyDate", "") or ""))
    time = first_moment("TM", str(entity.get("StudyTime", "") or ""))
    if day is None or time is None:
        return False
    low = first_day is None or (first_day, first_time) <= (day, time)
    return low and (last_day is None or (day, time) <= (last_day, last_time))
