"""Generated studies are valid, various, and the same every time."""

import tracemalloc

import numpy as np
import pytest
from dcmtk import run
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from gateway.translate.generate import colour, ct_series, demo_study, multi_frame, uid
from gateway.translate.part10 import read_file_meta, read_identity


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return demo_study(tmp_path_factory.mktemp("study"))


def test_the_demonstration_has_series_a_multi_frame_and_a_compressed_image_of_one_study(study):
    datasets = [dcmread(generated.path) for generated in study]
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == 1
    assert len({dataset.PatientID for dataset in datasets}) == 1
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 4
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(datasets) > 10
    assert [dataset.NumberOfFrames for dataset in datasets if "NumberOfFrames" in dataset] == [5]
    assert {generated.transfer_syntax for generated in study} == {ExplicitVRLittleEndian, RLELossless}


def test_what_is_said_of_a_file_is_what_it_holds(study):
    for generated in study:
        with generated.path.open("rb") as file:
            meta = read_file_meta(file)
            file.seek(meta.offset)
            identity = read_identity(file, meta.transfer_syntax)
        assert (identity.study, identity.series) == (generated.study, generated.series)
        assert meta.sop_class == identity.sop_class == generated.sop_class
        assert meta.sop_instance == identity.sop_instance == generated.sop_instance
        assert meta.transfer_syntax == generated.transfer_syntax


def test_every_file_is_read_without_a_complaint_and_shows_an_image(study):
    for generated in study:
        dataset = dcmread(generated.path)
        tags = list(dataset.keys())
        assert tags == sorted(tags)
        assert all(one.is_valid for one in (dataset.StudyInstanceUID, dataset.SOPInstanceUID))
        result = run("dcmdump", generated.path)
        assert result.returncode == 0
        assert not [line for line in result.output.splitlines() if line.startswith(("W:", "E:"))]
        pixels = dataset.pixel_array
        assert 0 <= pixels.min() < pixels.max() < 1 << dataset.BitsStored
        assert len(np.unique(pixels)) > 100


def test_a_series_has_the_size_and_number_asked_for_and_no_two_slices_alike(tmp_path):
    series = list(ct_series(tmp_path, "sizes", count=5, rows=512, columns=512))
    assert len({generated.path.read_bytes()[-1_000:] for generated in series}) == 5
    for number, generated in enumerate(series, 1):
        assert 512 * 1024 < generated.path.stat().st_size < 514 * 1024
        assert dcmread(generated.path).InstanceNumber == number


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_uids(tmp_path):
    def content(seed, folder):
        made = [
            *ct_series(tmp_path / folder, seed, count=1, rows=8, columns=8),
            colour(tmp_path / folder, seed, number=2),
        ]
        return [generated.path.read_bytes() for generated in made]

    assert content("one", "a") == content("one", "b")
    assert content("one", "a") != content("two", "c")
    assert uid("one") != uid("two")
    assert uid("a", 1) == uid("a", 1)


def test_attributes_replace_and_add_elements(tmp_path):
    changes = {"PatientName": "Müller^Jörg", "PatientID": "", "BodyPartExamined": "CHEST", "Rows": 4}
    (generated,) = ct_series(tmp_path, "changed", count=1, rows=8, columns=4, attributes=changes)
    dataset = dcmread(generated.path)
    assert (dataset.PatientName, dataset.PatientID) == ("Müller^Jörg", "")
    assert (dataset.BodyPartExamined, dataset.Rows) == ("CHEST", 4)
    with pytest.raises(ValueError, match="NoSuchKeyword"):
        list(ct_series(tmp_path, "changed", count=1, rows=8, columns=8, attributes={"NoSuchKeyword": "1"}))


def test_a_multi_frame_of_any_size_is_written_in_little_memory(tmp_path):
    tracemalloc.start()
    generated = multi_frame(tmp_path, "large", frames=100, rows=256, columns=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert generated.path.stat().st_size > 100 * 256 * 256 * 2
    assert peak < 40 * 256 * 256 * 2
