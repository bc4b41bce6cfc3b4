import numpy as np
from ct_samples import rotation
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import polar

from preprocessing.decoding.raster import checked_geometry
from preprocessing.geometry import IDENTITY, Geometry
from preprocessing.orient import turn_towards

angle = st.floats(-np.pi, np.pi)
spacing = st.floats(0.1, 10)
geometries = st.builds(
    lambda shape, steps, origin, angles, mirror: Geometry(
        shape, steps, origin, tuple(map(tuple, (rotation(angles) @ np.diag([mirror, 1, 1])).tolist()))
    ),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[spacing] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.tuples(*[angle] * 3),
    st.sampled_from([-1.0, 1.0]),
)
points = st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5)


@given(geometries, points)
def test_index_is_the_inverse_of_world(geometry, index):
    assert np.allclose(geometry.index(geometry.world(index)), index, atol=1e-6)


@given(geometries)
def test_a_geometry_survives_its_dictionary(geometry):
    assert Geometry.from_dict(geometry.to_dict()) == geometry


@given(geometries)
@settings(max_examples=50)
def test_turning_keeps_every_voxel_at_its_place_in_the_world(geometry):
    turn = turn_towards(geometry)
    turned = turn.geometry(geometry)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), -1)
    places = np.stack([turn.array(geometry.world(index)[..., a]) for a in range(3)], -1)
    own = np.stack(np.meshgrid(*[np.arange(n) for n in turned.shape], indexing="ij"), -1)
    assert np.allclose(turned.world(own), places, atol=1e-6)


@given(geometries)
def test_after_turning_no_axis_runs_backwards(geometry):
    direction = np.asarray(turn_towards(geometry).geometry(geometry).direction)
    assert turn_towards(turn_towards(geometry).geometry(geometry)).order == (0, 1, 2)
    assert (np.diag(direction) >= 0).all()


def test_an_axis_aligned_geometry_is_not_turned():
    turn = turn_towards(Geometry((2, 3, 4), (1, 1, 1), direction=IDENTITY))
    assert turn.order == (0, 1, 2)
    assert turn.flips == ()


@settings(deadline=None)
@given(geometries, st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.sampled_from([1e-6, 1e-3, 1e-2, 0.05]))
def test_axes_are_set_upright_where_that_moves_no_corner_by_a_quarter_voxel_and_else_kept(geometry, noise, size):
    matrix = (np.eye(3) + size * np.reshape(noise, (3, 3))) @ geometry.matrix
    steps = np.linalg.norm(matrix, axis=0)
    middle = (np.array(geometry.shape) - 1) / 2
    stated = Geometry.from_dict(geometry.to_dict() | {"spacing_mm": steps, "direction": matrix / steps})
    turned = Geometry.from_dict(stated.to_dict() | {"direction": polar(matrix / steps)[0]})
    origin = turned.origin_mm + stated.world(middle) - turned.world(middle)
    upright = Geometry.from_dict(turned.to_dict() | {"origin_mm": origin})
    moved = np.linalg.norm(upright.corners() - stated.corners(), axis=1).max() / steps.min()
    assume(steps.min() > 0.06 and abs(moved - 0.25) > 1e-4)
    read, findings = checked_geometry(geometry.shape, matrix, geometry.origin_mm, "ct")
    assert np.allclose(read.spacing_mm, steps)
    assert np.allclose(read.corners(), (upright if moved < 0.25 else stated).corners(), atol=1e-5)
    assert any("resampled, not sheared" in finding for finding in findings) == (moved > 0.25)


def test_a_matrix_bent_by_rounding_is_upright_and_said():
    geometry = Geometry((100, 512, 512), (2.5, 0.8, 0.8), (-300.0, 200.0, 180.0))
    for skew, said in ((5e-5, False), (4e-4, True)):
        matrix = geometry.matrix
        matrix[1, 2] += skew * 0.8
        read, findings = checked_geometry(geometry.shape, matrix, geometry.origin_mm, "ct")
        direction = np.asarray(read.direction)
        assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-8)
        assert ["set upright" in finding for finding in findings] == [True] * said
