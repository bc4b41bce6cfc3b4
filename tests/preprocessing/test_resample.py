import numpy as np
import pytest
import SimpleITK as sitk
from ct_samples import ball_hu, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image
from preprocessing.geometry import IDENTITY, Geometry
from preprocessing.orient import turn_towards
from preprocessing.resample import output_grid, resample, resample_onto
from preprocessing.volume import Volume

SLOPE_PER_MM = np.array([3.0, -2.0, 1.5])  # HU per mm along world z, y, x


def ramp(geometry: Geometry) -> Volume:
    """HU that rise linearly with the place in the world, so that its value is known anywhere."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), -1)
    hu = (geometry.world(index) - geometry.corners().mean(0)) @ SLOPE_PER_MM
    return Volume(hu.round().astype(np.int16), geometry)


def signed_permutations():
    axes = st.permutations([0, 1, 2])
    return st.builds(lambda p, s: np.eye(3)[:, p] * s, axes, st.tuples(*[st.sampled_from([-1, 1])] * 3))


def as_direction(matrix):
    return tuple(tuple(float(v) for v in row) for row in matrix)


@given(
    signed_permutations(),
    st.tuples(*[st.integers(8, 24)] * 3),
    st.tuples(*[st.floats(0.6, 5)] * 3),
    st.floats(0.7, 4),
)
@settings(max_examples=60, deadline=None)
def test_values_keep_their_place_under_every_orientation(direction, shape, spacing, target):
    source = Geometry(shape, spacing, (-40.0, 12.5, 300.0), as_direction(direction))
    out = resample(ramp(source), target)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in out.geometry.shape], indexing="ij"), -1)
    world = out.geometry.world(index)
    inside = ((source.index(world) >= -1e-6) & (source.index(world) <= np.asarray(shape) - 1 + 1e-6)).all(-1)
    expected = (world - source.corners().mean(0)) @ SLOPE_PER_MM
    assert inside.any()
    assert np.abs(out.image - expected)[inside].max() <= 1.01
    assert out.geometry.direction == IDENTITY


@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.floats(0.8, 3))
@settings(max_examples=25, deadline=None)
def test_values_keep_their_place_in_oblique_volumes(angles, target):
    source = Geometry((16, 18, 20), (2.5, 1.2, 1.2), (5.0, -60.0, 10.0), as_direction(rotation(angles)))
    out = resample(ramp(source), target)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in out.geometry.shape], indexing="ij"), -1)
    at = source.index(out.geometry.world(index))
    inside = ((at > 0.001) & (at < np.asarray(source.shape) - 1.001)).all(-1)
    expected = (out.geometry.world(index) - source.corners().mean(0)) @ SLOPE_PER_MM
    assert np.abs(out.image - expected)[inside].max() <= 1.01


def test_a_tilted_gantry_is_resampled_and_not_sheared():
    tilt = np.radians(20)
    direction = np.eye(3)
    direction[:, 1] = [-np.sin(tilt), np.cos(tilt), 0]  # slices lean, the table moves along z
    source = Geometry((20, 24, 16), (2.0, 1.0, 1.0), direction=as_direction(direction))
    out = resample(ramp(source), 1.0)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in out.geometry.shape], indexing="ij"), -1)
    at = source.index(out.geometry.world(index))
    inside = ((at > 0.001) & (at < np.asarray(source.shape) - 1.001)).all(-1)
    expected = (out.geometry.world(index) - source.corners().mean(0)) @ SLOPE_PER_MM
    assert np.abs(out.image - expected)[inside].max() <= 1.01
    assert (out.image[~((at > -1) & (at < np.asarray(source.shape))).all(-1)] == -1024).all()


@given(signed_permutations())
@settings(max_examples=20, deadline=None)
def test_equal_spacing_gives_back_the_same_voxels(direction):
    array = ball_hu((10, 12, 14))
    source = Geometry(array.shape, (1.3, 1.3, 1.3), (1.0, 2.0, 3.0), as_direction(direction))
    labels = (array > 0).astype(np.uint8) * 5
    out = resample(Volume(array, source, anatomy=labels, lesion=labels // 5), 1.3)
    turn = turn_towards(source)
    assert np.array_equal(out.image, turn.array(array))
    assert np.array_equal(out.anatomy, turn.array(labels))
    assert np.allclose(out.geometry.origin_mm, source.corners().min(0))


@pytest.mark.parametrize("target", [0.9, 1.0, 2.0, 4.0, 7.3])
def test_the_output_covers_the_source_and_invents_no_air(target):
    array = np.full((9, 20, 31), 40, np.int16)
    source = Geometry(array.shape, (5.0, 0.8, 0.8), (0.0, 0.0, 0.0))
    out = resample(Volume(array, source), target)
    reach = np.asarray(out.geometry.shape) * target
    assert (reach >= np.asarray(array.shape) * source.spacing_mm - target - 0.5 * np.asarray(source.spacing_mm)).all()
    assert (out.image == 40).all()


def test_labels_take_the_nearest_voxel_only():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 119, (12, 15, 18)).astype(np.uint8)
    source = Geometry(labels.shape, (3.1, 1.7, 0.9), direction=as_direction(np.diag([-1, 1, -1])))
    out = resample(Volume(np.zeros(labels.shape, np.int16), source, anatomy=labels), 1.0)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in out.geometry.shape], indexing="ij"), -1)
    at = np.clip(np.rint(source.index(out.geometry.world(index))), 0, np.asarray(labels.shape) - 1).astype(int)
    assert np.array_equal(out.anatomy, labels[tuple(np.moveaxis(at, -1, 0))])


def test_a_companion_stays_on_the_images_grid():
    array = ball_hu()
    source = Geometry(array.shape, (2.0, 1.0, 1.0))
    out = resample(Volume(array, source, companions={"low_dose": array}), 1.5)
    assert np.array_equal(out.companions["low_dose"], out.image)


def test_what_lies_outside_the_source_is_air_or_background():
    array = np.full((8, 8, 8), 100, np.int16)
    source, grid = Geometry((8, 8, 8), (1.0, 1.0, 1.0)), Geometry((12, 8, 8), (1.0, 1.0, 1.0), (-2.0, 0.0, 0.0))
    assert set(np.unique(resample_onto(array, source, grid)[[0, 1, -1, -2]])) == {-1024}
    assert set(np.unique(resample_onto((array > 0).astype(np.uint8), source, grid, nearest=True)[:2])) == {0}


def test_a_grid_too_large_for_any_patient_is_refused():
    with pytest.raises(CaseError, match="too many"):
        output_grid(Geometry((600, 512, 512), (5.0, 5.0, 5.0)), 0.5)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("chest-4mm/ct-64.nrrd", 2.5),
        ("head-4mm/ct.nii.gz", 2.0),
        ("abdomen-3mm/ct.nii.gz", 4.0),
        ("spine-crop/sub-ct_label-22_ct.nii.gz", 1.0),
        ("lung-two-visits/3DCT_lung_followup.mha", 2.0),
        ("sarcoma/STS_003/CT_image.nii.gz", 1.5),
        ("head-neck/pt_12_ct.nii.gz", 4.0),
    ],
)
def test_real_volumes_agree_with_itk_within_one_hu(real_data, name, target):
    image = decode_image([str(real_data / name)])
    volume = resample(Volume(image.array, image.geometry), target)
    reference = sitk_reference(real_data / name, volume.geometry)
    axes = [np.arange(n) for n in volume.image.shape]
    at = image.geometry.index(volume.geometry.world(np.stack(np.meshgrid(*axes, indexing="ij"), -1)))
    inside = ((at >= 0) & (at <= np.asarray(image.geometry.shape) - 1)).all(-1)
    assert inside.mean() > 0.5
    assert np.abs(volume.image - reference)[inside].max() <= 1.0


def sitk_reference(path, grid: Geometry) -> np.ndarray:
    """The same resampling by ITK alone, read from the file by ITK, in float32."""
    moving = sitk.ReadImage(str(path), sitk.sitkFloat32)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in grid.shape[::-1]])
    resampler.SetOutputSpacing(grid.spacing_mm[::-1])
    resampler.SetOutputOrigin(grid.origin_mm[::-1])
    resampler.SetDefaultPixelValue(-1024)
    resampler.SetNumberOfThreads(1)
    return sitk.GetArrayFromImage(resampler.Execute(moving))
