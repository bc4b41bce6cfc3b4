"""A landmark keeps its place in the patient through every format, as the library that wrote the file says it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from ct_samples import rotation
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from preprocessing.decoding.decode import decode_image
from preprocessing.resample import resample
from preprocessing.volume import Volume

Place = np.ndarray  # x, y, z in mm, LPS
RAS_TO_LPS = np.array([-1, -1, 1])
SPACE_SIGNS = {"left-posterior-superior": (1, 1, 1), "RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1)}


@st.composite
def images(draw):
    """An array (x, y, z) with one bright ball, and an affine (4x4, LPS mm): any axes, flips, a tilt, any origin."""
    shape = draw(st.tuples(*[st.integers(11, 15)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.6, 4.0)] * 3))
    axes, signs = draw(st.permutations([0, 1, 2])), draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    tilt = draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[st.floats(-0.3, 0.3)] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation(tilt) @ (np.eye(3)[:, axes] * signs) * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-400, 400)] * 3))
    at = [draw(st.integers(4, n - 5)) for n in shape]
    grid = np.stack(np.indices(shape), -1) - at
    ball = np.exp(-(grid**2).sum(-1) / 2) * 2000 - 1000
    return ball.round().astype(np.int16), affine, tuple(at)


def _nifti(ending: str, kind: type = nib.Nifti1Image, change: Callable | None = None) -> Callable:
    def write(folder: Path, array: np.ndarray, affine: np.ndarray, at: tuple) -> tuple[Path, Place]:
        image = kind(array, np.diag([*RAS_TO_LPS, 1]) @ affine)
        image = change(image) if change else image
        nib.save(image, folder / f"ct.{ending}")
        return folder / f"ct.{ending}", (nib.load(folder / f"ct.{ending}").affine @ [*at, 1])[:3] * RAS_TO_LPS

    return write


def _qform_only(image):
    image.set_qform(image.affine, 1)
    image.set_sform(None, 0)
    return image


def _big_endian(image):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    return nib.Nifti1Image(image.dataobj, image.affine, header)


def _one_volume_of_four_axes(image):
    return nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)


def _floats_with_slope(image):
    image = nib.Nifti1Image((np.asarray(image.dataobj) + np.float32(1024)) * 4, image.affine)
    image.header.set_slope_inter(0.25, -1024)
    return image


def _extended(image):
    image.header.extensions.append(nib.nifti1.Nifti1Extension(30, b"<CaretExtension><Date/></CaretExtension>"))
    return image


def _nrrd(
    ending: str, space: str, encoding: str, *, big_endian: bool = False, list_axis: int | None = None
) -> Callable:
    def write(folder: Path, array: np.ndarray, affine: np.ndarray, at: tuple) -> tuple[Path, Place]:
        signs = np.array(SPACE_SIGNS[space])
        rows = (signs[:, None] * affine[:3, :3]).T
        kinds = ["domain"] * 3
        if list_axis is not None:
            rows, kinds = np.insert(rows, list_axis, np.nan, 0), [*kinds[:list_axis], "list", *kinds[list_axis:]]
            array = np.expand_dims(array, list_axis)
        header = {"space": space, "space directions": rows, "space origin": signs * affine[:3, 3], "kinds": kinds}
        path = folder / f"ct.{ending}"
        array = array.astype(">i2") if big_endian else array
        nrrd.write(str(path), array, header | {"encoding": encoding}, detached_header=ending == "nhdr")
        read = nrrd.read_header(str(path))
        steps = read["space directions"][np.isfinite(read["space directions"]).all(1)]
        return path, signs * (read["space origin"] + np.asarray(at) @ steps)

    return write


def _itk(ending: str, *, packed: bool = False) -> Callable:
    def write(folder: Path, array: np.ndarray, affine: np.ndarray, at: tuple) -> tuple[Path, Place]:
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        path = folder / f"ct.{ending}"
        sitk.WriteImage(image, str(path), packed)
        return path, np.array(sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint([int(n) for n in at]))

    return write


WRITERS = {
    "NIfTI": _nifti("nii"),
    "NIfTI packed": _nifti("nii.gz"),
    "NIfTI pair": _nifti("hdr", nib.Nifti1Pair),
    "NIfTI-2": _nifti("nii", nib.Nifti2Image),
    "NIfTI qform only": _nifti("nii.gz", change=_qform_only),
    "NIfTI big-endian": _nifti("nii", change=_big_endian),
    "NIfTI 4-D": _nifti("nii.gz", change=_one_volume_of_four_axes),
    "NIfTI float with slope": _nifti("nii.gz", change=_floats_with_slope),
    "NIfTI with Caret XML": _nifti("nii.gz", change=_extended),
    "NIfTI by ITK": _itk("nii.gz"),
    "NRRD LPS raw": _nrrd("nrrd", "left-posterior-superior", "raw"),
    "NRRD RAS gzip": _nrrd("nrrd", "RAS", "gzip"),
    "NRRD LAS bzip2": _nrrd("nrrd", "left-anterior-superior", "bzip2"),
    "NRRD RAS ascii": _nrrd("nrrd", "RAS", "ascii"),
    "NRRD big-endian": _nrrd("nrrd", "left-posterior-superior", "raw", big_endian=True),
    "NRRD big-endian gzip": _nrrd("nrrd", "RAS", "gzip", big_endian=True),
    "NRRD list axis first": _nrrd("nrrd", "left-posterior-superior", "gzip", list_axis=0),
    "NRRD list axis last": _nrrd("nrrd", "RAS", "raw", list_axis=3),
    "NRRD detached raw": _nrrd("nhdr", "left-anterior-superior", "raw"),
    "NRRD detached gzip": _nrrd("nhdr", "RAS", "gzip"),
    "NRRD detached bzip2": _nrrd("nhdr", "left-posterior-superior", "bzip2"),
    "NRRD by ITK": _itk("nrrd", packed=True),
    "MetaImage": _itk("mha"),
    "MetaImage packed": _itk("mha", packed=True),
    "MetaImage detached": _itk("mhd"),
    "MetaImage detached packed": _itk("mhd", packed=True),
}


@pytest.mark.parametrize("name", WRITERS)
@given(images(), st.floats(0.7, 1.0))
@settings(max_examples=4, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
def test_a_landmark_keeps_its_place_through_decoder_and_converter(name, made, finer):
    array, affine, at = made
    with tempfile.TemporaryDirectory() as folder:
        path, place = WRITERS[name](Path(folder), array, affine, at)
        decoded = decode_image([str(path)])
    brightest = np.unravel_index(decoded.array.argmax(), decoded.array.shape)
    assert np.abs(decoded.geometry.world(brightest)[::-1] - place).max() < 0.01
    assert np.array_equal(np.sort(decoded.array, axis=None), np.sort(array, axis=None))
    out = resample(Volume(decoded.array, decoded.geometry), finer * min(decoded.geometry.spacing_mm))
    weight = np.maximum(out.image + 1000.0, 0)
    centre = sum(weight.sum(tuple({0, 1, 2} - {a})) @ np.arange(n) * np.eye(3)[a] for a, n in enumerate(weight.shape))
    apart = np.abs(out.geometry.world(centre / weight.sum())[::-1] - place)
    half_a_voxel = np.abs(affine[:3, :3]) @ np.full(3, 0.5)
    assert (apart <= half_a_voxel).all()
