"""DICOM files made for tests, without the package's readers: compressed series, enhanced CT, SEG and RTSTRUCT."""

from pathlib import Path

import highdicom
import imagecodecs
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
)

AXIAL = [1, 0, 0, 0, 1, 0]
SYNTAXES = {
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "jpeg-lossless-57": JPEGLossless,
    "jpeg-lossless-70": JPEGLosslessSV1,
}


def compress(paths: list[Path], syntax: str) -> list[Path]:
    """The same slices, rewritten in another transfer syntax."""
    uid = SYNTAXES[syntax]
    for path in paths:
        dataset = pydicom.dcmread(path)
        if uid in (JPEGLossless, JPEGLosslessSV1):
            predictor = 1 if uid == JPEGLosslessSV1 else 4
            pixels = dataset.pixel_array.view(np.uint16)
            dataset.PixelData = encapsulate([_jpeg_lossless(pixels, predictor)])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = uid
        elif uid == DeflatedExplicitVRLittleEndian:
            dataset.file_meta.TransferSyntaxUID = uid
        else:
            dataset.compress(uid, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    return paths


def _jpeg_lossless(pixels: np.ndarray, predictor: int) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=16)


def write_enhanced(path: Path, stored: np.ndarray, positions, **changes) -> Path:
    """One Enhanced CT file of frames `stored` (n, y, x) at `positions` (x, y, z).

    `changes` may name `orientation` and `stack`, `slope`, `intercept`, `kind` (ImageType): a tuple gives each frame its
    own value in its own functional group, anything else is shared by all.
    """
    facts = {"orientation": AXIAL, "slope": 1, "intercept": 0, "stack": None, "kind": None, **changes}
    dataset = _enhanced(stored)
    dataset.SharedFunctionalGroupsSequence = [_groups({k: v for k, v in facts.items() if not isinstance(v, tuple)})]
    own = {name: value for name, value in facts.items() if isinstance(value, tuple)}
    frames = []
    for k, position in enumerate(positions):
        frames.append(_groups({name: value[k] for name, value in own.items()}))
        frames[-1].PlanePositionSequence = [_item(ImagePositionPatient=list(position))]
    dataset.PerFrameFunctionalGroupsSequence = frames
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _enhanced(stored: np.ndarray) -> Dataset:
    dataset = _file(EnhancedCTImageStorage, "1.2.3.77")
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3.5"
    dataset.PatientID, dataset.FrameOfReferenceUID = "P-1", "1.2.6.6"
    dataset.NumberOfFrames, (dataset.Rows, dataset.Columns) = len(stored), stored.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(stored.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    return dataset


def _groups(facts: dict) -> Dataset:
    groups = Dataset()
    if "orientation" in facts:
        groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=facts["orientation"])]
        groups.PixelMeasuresSequence = [_item(PixelSpacing=[1.5, 1.25], SliceThickness=2)]
    if "slope" in facts and facts["slope"] is not None:
        groups.PixelValueTransformationSequence = [
            _item(RescaleSlope=facts["slope"], RescaleIntercept=facts["intercept"], RescaleType="HU")
        ]
    if facts.get("stack"):
        groups.FrameContentSequence = [_item(StackID=facts["stack"])]
    if facts.get("kind"):
        groups.CTImageFrameTypeSequence = [_item(FrameType=facts["kind"])]
    return groups


def write_seg(path: Path, images: list[Path], masks: np.ndarray, segments, kind="BINARY", **options) -> Path:
    """A SEG of `masks` (slice of `images`, y, x, segment), written by highdicom.

    `segments` are (label, type, organ) texts; `kind` is BINARY, FRACTIONAL or LABELMAP.
    """
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
            segmented_property_type=CodedConcept("108369006", "SCT", type_),
            algorithm_type="MANUAL",
            anatomic_regions=[CodedConcept("10200004", "SCT", organ)] if organ else None,
        )
        for number, (label, type_, organ) in enumerate(segments, 1)
    ]
    dataset = highdicom.seg.Segmentation(
        source_images=[_complete(image) for image in images],
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid="1.2.3.90",
        series_number=90,
        sop_instance_uid="1.2.3.91",
        instance_number=1,
        manufacturer="tests",
        manufacturer_model_name="tests",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def shuffle_frames(path: Path, seed: int = 3) -> Path:
    """The same binary SEG with its frames, and their functional groups, in another order."""
    dataset = pydicom.dcmread(path)
    order = np.random.default_rng(seed).permutation(dataset.NumberOfFrames)
    dataset.PixelData = pack_bits(dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)[order])
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[int(k)] for k in order]
    dataset.save_as(path)
    return path


def _complete(path: Path) -> Dataset:
    """An image with the empty elements that a SEG copies from it."""
    dataset = pydicom.dcmread(path)
    for name in ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName"):
        setattr(dataset, name, dataset.get(name) or "")
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.FrameOfReferenceUID = dataset.get("FrameOfReferenceUID") or "1.2.6.6"
    return dataset


def write_rtstruct(path: Path, regions, *, series: str = "1.2.3.4", instances=()) -> Path:
    """An RTSTRUCT of `regions`: (number, name, type, contours), a contour being points (n, 3) in x, y, z mm."""
    dataset = _file(RTStructureSetStorage, "1.2.3.80")
    dataset.Modality, dataset.PatientID, dataset.SeriesInstanceUID = "RTSTRUCT", "P-1", "1.2.3.81"
    images = [_item(ReferencedSOPInstanceUID=uid) for uid in instances]
    referenced = _item(SeriesInstanceUID=series, ContourImageSequence=images)
    study = _item(RTReferencedSeriesSequence=[referenced])
    frame = _item(FrameOfReferenceUID="1.2.6.6", RTReferencedStudySequence=[study])
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence = [_item(ROINumber=number, ROIName=name) for number, name, _, _ in regions]
    dataset.RTROIObservationsSequence = [
        _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType=kind)
        for number, _, kind, _ in regions
    ]
    dataset.ROIContourSequence = [
        _item(ReferencedROINumber=number, ContourSequence=[_contour(points) for points in contours])
        for number, _, _, contours in regions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _contour(points) -> Dataset:
    data = [f"{v:.6f}" for v in np.asarray(points, float).ravel()]
    return _item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points), ContourData=data)


def _item(**elements) -> Dataset:
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def _file(sop_class: str, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = sop_class, instance
    return dataset
