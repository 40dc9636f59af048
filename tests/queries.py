"""Generated entities, and identifiers that ask for them, almost for them, or for nonsense."""

from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

NAMES = [
    "Doe^John", "DOE^JANE^^Dr", "Doe", "doe^john^^^", "Müller^Jürgen", "Muller^Jurgen", "Weiß^Anna", "O'Neil^A B",
    "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동", "Διονυσιος", "Люксембург", "=山田^太郎",
    "A^B^C^D^E", "Zoe\u0308^X", "Zoë^X",
]  # fmt: skip
TEXTS = [
    "A1",
    "a1",
    "A10",
    "A 1",
    "A,1",
    "A<1",
    "*A1",
    "A1 B2",
    "Ä1",
    "50%",
    "a&b=c",
    "#1/2",
    "A-1",
    '"A"',
    "山1",
    "A_1",
]
DATES = ["20200101", "20200131", "20200201", "2020.02.29", "19991231", "20201231"]
TIMES = ["10", "1015", "101500", "101559.5", "235959.999999", "10:15:00", "000000"]
DATE_TIMES = ["2020", "202001", "20200101", "20200101101500", "20200101101500.25+0100", "20200101091500-0130"]
MODALITIES = ["CT", "MR", "SR", "PT"]
UIDS = [f"1.2.{number}" for number in range(1, 5)]


def put(dataset, keyword, value):
    """Set a value that need not be legal."""
    tag = tag_for_keyword(keyword)
    try:
        dataset[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)
    except (ValueError, TypeError):
        dataset[tag] = DataElement(tag, dictionary_VR(tag), value, already_converted=True)


def maybe(values):
    """Give one of the values, an empty one, or none at all."""
    return st.one_of(st.sampled_from(values), st.sampled_from(values), st.sampled_from(["", None]))


FIELDS = {
    "PatientName": maybe(NAMES),
    "PatientID": maybe(TEXTS),
    "PatientBirthDate": maybe(DATES),
    "StudyDate": maybe(DATES),
    "StudyTime": maybe(TIMES),
    "AccessionNumber": maybe(TEXTS),
    "StudyID": maybe(TEXTS),
    "StudyDescription": maybe(TEXTS),
    "ReferringPhysicianName": maybe(NAMES),
    "PatientWeight": maybe(["70", "70.0", "7e1", "70.25", "0.5"]),
    "SeriesNumber": maybe(["1", "01", "+1", "2", "100"]),
    "SeriesDescription": maybe(TEXTS),
    "Modality": maybe(MODALITIES),
    "InstanceNumber": maybe(["1", "001", "-3"]),
    "AcquisitionDateTime": maybe(DATE_TIMES),
}


@st.composite
def entities(draw):
    """Give an entity of all levels: a data set with the UIDs of its study, series and instance."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, values in FIELDS.items():
        value = draw(values)
        if value is not None:
            put(dataset, keyword, value)
    study, series, instance = (draw(st.sampled_from(UIDS)) for _ in range(3))
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = f"{study}.{series}"
    dataset.SOPInstanceUID = f"{study}.{series}.{instance}"
    dataset.ModalitiesInStudy = draw(st.lists(st.sampled_from(MODALITIES), unique=True, max_size=3))
    dataset.RequestAttributesSequence = draw(st.lists(items(), max_size=2))
    return dataset


@st.composite
def items(draw):
    item = Dataset()
    put(item, "ScheduledProcedureStepID", draw(st.sampled_from(TEXTS)))
    put(item, "RequestedProcedureID", draw(st.sampled_from(TEXTS)))
    return item


@st.composite
def wildcards(draw, text):
    """Spoil a text with wildcards, another case or a cut."""
    signs = list(text)
    for _ in range(draw(st.integers(0, 2))):
        position = draw(st.integers(0, len(signs)))
        signs[position : position + draw(st.integers(0, 3))] = draw(st.sampled_from(["*", "?", "^", "**", ""]))
    changed = "".join(signs)
    return draw(st.sampled_from([changed, changed, changed.upper(), changed.lower(), text]))


@st.composite
def ranges(draw, values):
    low, high = draw(st.sampled_from(["", *values])), draw(st.sampled_from(["", *values]))
    return draw(st.sampled_from([f"{low}-{high}", f"{low} - {high}".strip(), low or high, f"{low}-{high}"]))


@st.composite
def keys(draw, keyword, *, lists=True):
    """Give a value to ask for an attribute with, of the sort that its VR has."""
    if keyword.endswith(("Date", "Time")):
        values = DATE_TIMES if "DateTime" in keyword else DATES if keyword.endswith("Date") else TIMES
        one = st.one_of(st.sampled_from(values), ranges(values))
    elif keyword.endswith("UID"):
        one = st.sampled_from([*UIDS, "1.2.1.1.2.1", "1.2.1.1.2.2", "1.2.1.1.2.1.1.2.1"])
    elif keyword.endswith("Number") or keyword == "PatientWeight":
        one = st.sampled_from(["1", "01", "+1", "70.00", "7.0e1", "-03", "2"])
    else:
        known = NAMES if keyword.endswith("Name") else MODALITIES if "Modalit" in keyword else TEXTS
        one = st.sampled_from(known).flatmap(wildcards)
    many = st.lists(one, min_size=1, max_size=3 if lists else 1)
    return draw(st.one_of(many, many, st.sampled_from([[""], ["*"]])))


@st.composite
def identifiers(draw, level="STUDY"):
    """Give an identifier at a level, with any keys; the upper unique keys may be missing."""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = level
    chosen = draw(st.lists(st.sampled_from([*FIELDS, "ModalitiesInStudy", "StudyInstanceUID", "SeriesInstanceUID",
                                            "SOPInstanceUID"]), unique=True, max_size=5))  # fmt: skip
    for keyword in chosen:
        put(identifier, keyword, draw(keys(keyword)))
    if draw(st.booleans()):
        item = Dataset()
        for keyword in draw(st.lists(st.sampled_from(["ScheduledProcedureStepID", "RequestedProcedureID"]))):
            put(item, keyword, draw(keys(keyword)))
        identifier.RequestAttributesSequence = [item] if draw(st.booleans()) else []
    return identifier


def identifier_of(level="STUDY", **values):
    """Give an identifier with these keys."""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = level
    for keyword, value in values.items():
        put(identifier, keyword, value)
    return identifier
