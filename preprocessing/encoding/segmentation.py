"""Masks as a DICOM SEG (binary, a segment a mask) that refers to the slices they were drawn on."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from highdicom.content import (
    AlgorithmIdentificationSequence,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from preprocessing.case import Case, CaseError
from preprocessing.decoding.dicom_header import HEADER_ERRORS, DicomHeader, parse
from preprocessing.encoding.codes import meaning_of
from preprocessing.encoding.derived import MAKER, WARNING, Derivation, code_item, plain, series_number
from preprocessing.encoding.placed import decimals, thickness
from preprocessing.encoding.source_slices import is_one_to_one, source_slices
from preprocessing.geometry import Geometry

PATIENT_AND_STUDY = (  # repeated as they are; highdicom would refuse some of what files hold
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
LABEL_LENGTH = 64


def write_segmentation(
    path: Path, case: Case, masks: Mapping[str, NDArray[np.uint8]], geometry: Geometry, derivation: Derivation
) -> None:
    """One SEG of masks (z, y, x; 0/1) on a geometry, which refers to the series of the case.

    Raises:
        CaseError: the series' headers do not allow it.
    """
    slices = source_slices(case)
    try:
        sources = list(_sources(slices, derivation))
        dataset = _segmentation(sources, slices, masks, geometry, derivation)
        _restore(dataset, slices[0])
        dataset.save_as(path, enforce_file_format=True)
    except OSError:
        raise
    except HEADER_ERRORS as error:
        raise CaseError(
            f"{case.id}: its headers do not allow a DICOM SEG ({str(error)[:160]!r}); write the masks as .nii.gz."
        ) from error


def _segmentation(
    sources: list[Dataset],
    slices: Sequence[DicomHeader],
    masks: Mapping[str, NDArray[np.uint8]],
    geometry: Geometry,
    derivation: Derivation,
) -> Segmentation:
    return Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(masks.values()), axis=-1),
        segmentation_type="BINARY",
        segment_descriptions=[_described(number, name) for number, name in enumerate(masks, 1)],
        series_instance_uid=derivation.uid("series"),
        series_number=series_number(slices[0]),
        sop_instance_uid=derivation.uid("masks"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version("meddiff"),
        device_serial_number=MAKER,
        content_label=MAKER.upper(),
        content_description=f"{MAKER}, {WARNING}",
        content_qualification="RESEARCH",
        series_description=f"{MAKER} masks, {WARNING}",
        **_places(slices, geometry),
    )


def _places(slices: Sequence[DicomHeader], geometry: Geometry) -> dict:
    """Where the planes lie: exactly on the source's slices where the geometry is theirs."""
    if _same_planes(slices, geometry):
        return {"plane_positions": [PlanePositionSequence("PATIENT", s.frame.position_xyz) for s in slices]}
    direction = np.asarray(geometry.direction)
    cosines = [float(cosine) for cosine in decimals([*direction[::-1, 2], *direction[::-1, 1]])]
    planes = [geometry.world((k, 0, 0))[::-1].tolist() for k in range(geometry.shape[0])]
    return {
        "plane_positions": [PlanePositionSequence("PATIENT", place) for place in planes],
        "plane_orientation": PlaneOrientationSequence("PATIENT", cosines),
        "pixel_measures": PixelMeasuresSequence(geometry.spacing_mm[1:], thickness(geometry), thickness(geometry)),
    }


def _same_planes(slices: Sequence[DicomHeader], geometry: Geometry) -> bool:
    if geometry.shape != (len(slices), *slices[0].size) or not is_one_to_one(slices):
        return False
    places = [geometry.world((k, 0, 0))[::-1] for k in range(len(slices))]
    return np.allclose(places, [header.frame.position_xyz for header in slices], atol=0.5 * min(geometry.spacing_mm))


def _described(number: int, name: str) -> SegmentDescription:
    meaning = meaning_of(name)
    segment = SegmentDescription(
        segment_number=number,
        segment_label=plain(name)[:LABEL_LENGTH],
        segmented_property_category=meaning.category,
        segmented_property_type=meaning.kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            MAKER, codes.DCM.ArtificialIntelligence, version("meddiff")
        ),
        anatomic_regions=[meaning.region] if meaning.region else None,
    )
    if meaning.side and meaning.region:
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [code_item(meaning.side)]
    elif meaning.side:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(meaning.side)]
    return segment


def _sources(slices: Sequence[DicomHeader], derivation: Derivation) -> Iterator[Dataset]:
    """The header of each file, completed, all turned as the first slice is."""
    first = slices[0].frame
    for path in dict.fromkeys(header.path for header in slices):
        dataset = parse(Path(path), [], pixels=False)
        _complete(dataset, path, derivation)
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
        if shared is None:
            dataset.ImageOrientationPatient = decimals(first.orientation_xyz)
            dataset.PixelSpacing = decimals(first.pixel_spacing_mm)
        else:
            shared.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", first.orientation_xyz)
            shared.PixelMeasuresSequence = PixelMeasuresSequence(first.pixel_spacing_mm, first.thickness_mm or 1.0)
        yield dataset


def _complete(dataset: Dataset, path: str, derivation: Derivation) -> None:
    """Adds what highdicom wants to be there, and takes away what it would refuse."""
    for keyword in PATIENT_AND_STUDY:
        setattr(dataset, keyword, "")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, dataset.get(keyword) or derivation.uid(keyword))
    dataset.SOPInstanceUID = dataset.get("SOPInstanceUID") or derivation.uid(path)
    dataset.pop("SpecificCharacterSet", None)


def _restore(dataset: Dataset, header: DicomHeader) -> None:
    """Patient and study as the source has them."""
    source = parse(Path(header.path), ["SpecificCharacterSet", *PATIENT_AND_STUDY], pixels=False)
    for keyword in ("SpecificCharacterSet", *PATIENT_AND_STUDY):
        if keyword in source:
            dataset.add(source[keyword])
