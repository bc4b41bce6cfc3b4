import numpy as np
from ct_samples import rotation
from hypothesis import given, settings
from hypothesis import strategies as st

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
