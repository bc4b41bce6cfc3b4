"""Thick slices from thin ones: weights that are a mean, an exact data step, and a search that finds what was used."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import interpolate

from preprocessing.decoding.decode import read_image
from preprocessing.sources.folder import FolderSource
from training.depth_operator import DepthOperator, calibrate
from training.restoration import depth_average, depth_average_step

OPERATORS = [
    DepthOperator.block(4),
    DepthOperator(factor=4, width=5.0, offset=0.8),
    DepthOperator(factor=4, profile="gaussian", width=4.0),
    DepthOperator(factor=4, profile="gaussian", width=3.2, offset=-1.2),
    DepthOperator(factor=5, profile="gaussian", width=3.35, offset=0.4),
]


def field(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    factor=st.integers(2, 6),
    profile=st.sampled_from(["mean", "gaussian"]),
    width=st.floats(0.5, 2),
    offset=st.floats(-0.5, 0.5),
)
def test_every_thick_slice_is_a_mean_around_its_centre(factor, profile, width, offset):
    operator = DepthOperator(factor=factor, profile=profile, width=width * factor, offset=offset * factor)
    weights = operator.matrix(10 * factor)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1)
    centre = weights[5] @ (np.arange(10 * factor) + 0.5)
    np.testing.assert_allclose(centre, factor * 5.5 + operator.offset, atol=0.3)


def test_the_block_is_the_mean_of_every_few_slices():
    x = field((2, 12, 3, 3))
    torch.testing.assert_close(DepthOperator.block(4).apply(x), depth_average(x, 4))
    y = field((2, 3, 3, 3), 1)
    ours, known = (step(x, 0.3) for step in (DepthOperator.block(4).data_step(y), depth_average_step(y, 4)))
    torch.testing.assert_close(ours, known)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("rho", [1e-4, 0.3, 50.0])
def test_the_data_step_is_the_least_squares_solution(operator, rho):
    depth = 6 * operator.factor
    x0, y = field((1, depth, 2, 2)), field((1, 6, 2, 2), 1)
    a = operator.matrix(depth)
    stacked = np.vstack([a, np.sqrt(rho) * np.eye(depth)])
    wanted = np.empty((depth, 2, 2))
    for i, j in np.ndindex(2, 2):
        right = np.concatenate([y[0, :, i, j], np.sqrt(rho) * x0[0, :, i, j]])
        wanted[:, i, j] = np.linalg.lstsq(stacked, right, rcond=None)[0]
    np.testing.assert_allclose(operator.data_step(y)(x0, rho)[0], wanted, atol=1e-8)


@pytest.mark.parametrize("operator", OPERATORS)
def test_calibration_finds_the_operator_that_made_the_pairs(operator):
    pairs = []
    for seed in range(2):
        thin = field((10 * operator.factor, 8, 8), seed)
        noise = 0.01 * field((10, 8, 8), seed + 10)
        pairs.append((thin.numpy(), (operator.apply(thin[None])[0] + noise).numpy()))
    assert calibrate(pairs, operator.factor) == operator


def test_depths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="10 slices are no multiple of 4"):
        DepthOperator.block(4).matrix(10)
    with pytest.raises(ValueError, match="2 thick slices are too few"):
        calibrate([(np.zeros((8, 2, 2)), np.zeros((2, 2, 2)))], 4)
    with pytest.raises(ValueError, match="no pair"):
        calibrate([], 4)


def test_a_real_pair_of_thick_and_thin_slices_is_fitted_better_than_by_picking_slices(real_data):
    """A plastic head scanned once, reconstructed at 5 mm and at 1 mm: an operator, no anatomy."""
    thick, thin = (
        read_image(FolderSource(path=str(real_data / "head-phantom-thick-thin" / name)).cases()[0])
        for name in ("5mm", "1mm")
    )
    np.testing.assert_allclose(thick.geometry.spacing_mm[1:], thin.geometry.spacing_mm[1:])
    places = thin.geometry.index([thick.geometry.world((k, 0, 0)) for k in range(thick.geometry.shape[0])])[:, 0] + 0.5
    inside = np.flatnonzero((places > 8) & (places < len(thin.image) - 8))
    np.testing.assert_allclose(np.diff(places[inside]), 5, atol=1e-3)
    start = round(places[inside[0]] - 2.5)
    wanted = thick.image[inside].astype(float)
    sharp = thin.image[start : start + 5 * len(inside)].astype(float)
    body = wanted > -300

    def error(operator):
        made = operator.apply(torch.as_tensor(sharp)[None])[0].numpy()
        return float(np.sqrt(np.square(made - wanted)[1:-1][body[1:-1]].mean()))

    found, true = calibrate([(sharp, wanted)], 5), float(places[inside[0]] - start - 2.5)
    picked = error(DepthOperator(factor=5, width=1.0, offset=true))
    back = interpolate.interp1d(places, thick.image.astype(float), axis=0)(np.arange(start, start + len(sharp)) + 0.5)
    apart = float(np.sqrt(np.square(back - sharp)[sharp > -300].mean()))
    print(f"{len(inside)} slices, {found}, true offset {true:.2f}: {error(found):.1f} HU")
    print(f"block {error(DepthOperator.block(5)):.1f}, picked {picked:.1f}; thick interpolated to thin {apart:.1f} HU")
    assert error(found) < min(0.5 * picked, error(DepthOperator.block(5)))
    assert abs(found.offset - true) < 0.5
