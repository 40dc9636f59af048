"""A client gets its instances back in every transfer syntax that it accepts, byte for byte."""

import dcmtk
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from samples import data_sets

SYNTAXES = [syntax for syntax in dcmtk.LETTERS if not syntax.endswith(".81")]  # no sample of it has its UIDs


@pytest.fixture
def some(samples, syntax):
    """Give up to three small samples in a transfer syntax."""
    found = [
        one for one in samples if one.has_patient_id and one.syntax == syntax and one.path.stat().st_size < 1 << 20
    ]
    assert found
    return found[:3]


@pytest.fixture
def stored(gateway, reference, some, syntax):
    files = [one.path for one in some]
    result = dcmtk.storescu(gateway.port, *files, syntax=syntax)
    assert result.statuses == [0x0000] * len(files), result.output[-3000:]
    return reference(dcmtk.storescu, *files, syntax=syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_comes_back_equals_what_went_in(gateway, receivers, some, stored, syntax, tmp_path):
    receiver = receivers[syntax]
    receiver.clear()
    for one in some:
        result = dcmtk.movescu(gateway.port, receiver.title, *one.keys, model="S")
        assert result.status == 0x0000, result.output[-3000:]
        result = dcmtk.getscu(gateway.port, tmp_path, *one.keys, model="S", syntax=syntax)
        assert result.returncode == 0, result.output[-3000:]
    assert data_sets(receiver.folder) == stored
    if syntax == ImplicitVRLittleEndian:  # with +xi DCMTK's getscu 3.6.7 proposes Explicit VR Little Endian alone
        assert data_sets(tmp_path).keys() == stored.keys()
    else:
        assert data_sets(tmp_path) == stored
