"""Noise as a scanner makes it: its size follows the dose, and it is correlated where white noise is not."""

import numpy as np
import pytest

from preprocessing.sources.phantom.dose import projection_noise, white_noise

SHAPE, PIXEL_MM = (12, 64, 88), 4.0


def water(wide_mm: float = 300.0, deep_mm: float = 200.0):
    """An elliptic water cylinder in air, HU, and where it is."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in SHAPE[1:])
    inside = (y[:, None] * PIXEL_MM / (deep_mm / 2)) ** 2 + (x * PIXEL_MM / (wide_mm / 2)) ** 2 < 1
    volume = np.broadcast_to(np.where(inside, 0, -1000), SHAPE).astype(np.float32)
    return volume, np.broadcast_to(inside, SHAPE)


def neighbours(noise, inside, axis):
    """Correlation of neighbouring voxels along an axis, inside."""
    first, second = (
        tuple(slice(a, b) if k == axis else slice(None) for k in range(3)) for a, b in ((0, -1), (1, None))
    )
    both = inside[first] & inside[second]
    return np.corrcoef(noise[first][both], noise[second][both])[0, 1]


def test_the_axis_of_the_body_has_the_noise_asked_for():
    volume, _ = water()
    noise = projection_noise(volume, PIXEL_MM, 12.0, np.random.default_rng(0))
    assert noise[:, 27:37, 39:49].std() == pytest.approx(12, rel=0.15)
    assert abs(noise[:, 27:37, 39:49].mean()) < 1.5


def test_a_quarter_of_the_dose_doubles_the_noise():
    volume, inside = water()
    routine = projection_noise(volume, PIXEL_MM, 12.0, np.random.default_rng(0))
    low = projection_noise(volume, PIXEL_MM, 12.0 / np.sqrt(0.25), np.random.default_rng(1))
    assert low[inside].std() / routine[inside].std() == pytest.approx(2, rel=0.08)
    assert abs(np.corrcoef(low[inside], routine[inside])[0, 1]) < 0.05


def test_more_tissue_more_noise():
    volume, _ = water()
    wide, _ = water(340, 240)
    both = np.concatenate([volume[:6], wide[:6]])
    noise = projection_noise(both, PIXEL_MM, 12.0, np.random.default_rng(0))
    assert noise[6:, 27:37, 39:49].std() > 1.2 * noise[:6, 27:37, 39:49].std()


def test_scanner_noise_is_correlated_in_the_slice_and_the_white_control_is_not():
    volume, inside = water()
    noise = projection_noise(volume, PIXEL_MM, 12.0, np.random.default_rng(0))
    white = white_noise(noise, inside, np.random.default_rng(1))
    assert white[inside].std() == pytest.approx(noise[inside].std(), rel=0.03)
    assert max(abs(neighbours(noise, inside, axis)) for axis in (1, 2)) > 0.15
    assert abs(neighbours(noise, inside, 0)) < 0.05
    assert all(abs(neighbours(white, inside, axis)) < 0.05 for axis in range(3))


def test_projection_agrees_with_scikit_image():
    """The same sinogram error, reconstructed by scikit-image's iradon, is the same noise."""
    from skimage.transform import iradon, radon

    volume, inside = water(230, 200)
    mu = (volume[0, :, 12:76] / 1000 + 1) * 0.0193 * PIXEL_MM
    theta = np.arange(60) * 3.0
    clean = radon(mu, theta, circle=True)
    photons, rng = 4e5, np.random.default_rng(0)
    error = -np.log(rng.poisson(photons * np.exp(-clean)) / photons) - clean
    theirs = iradon(error, theta, filter_name="hann", circle=True) / PIXEL_MM * 1000 / 0.0193
    target = theirs[28:36, 28:36].std()
    ours = projection_noise(volume[:, :, 12:76], PIXEL_MM, float(target), np.random.default_rng(1))[0]
    middle = inside[0, :, 12:76]
    assert ours[middle].std() == pytest.approx(theirs[middle].std(), rel=0.25)
    spectra = [np.abs(np.fft.fft2(n * middle)) ** 2 for n in (ours, theirs)]
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    bands = [[s[(radius >= a) & (radius < a + 0.1)].mean() / s.mean() for a in (0.0, 0.1, 0.2, 0.3)] for s in spectra]
    np.testing.assert_allclose(bands[0], bands[1], rtol=0.5)


def test_the_number_of_threads_changes_no_bit():
    from threadpoolctl import threadpool_limits

    volume = np.random.default_rng(0).normal(0, 10, (8, 128, 176)).astype(np.float32)
    volume[:, :20] = -1000
    images = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            images.append(projection_noise(volume, 2.4, 12.0, np.random.default_rng(0)))
    np.testing.assert_array_equal(*images)
