"""Noise as a scanner makes it: photon counts in the sinogram, carried into the image by filtered back-projection.

Reconstruction is linear, so the noise of an image is the reconstruction of (noisy − clean) line integrals; adding it to
the clean image gives what the scanner would give. Geometry: parallel beam, one detector bin per pixel, Hann-windowed
ramp filter (Kak & Slaney, Principles of Computerized Tomographic Imaging, ch. 3).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.sparse import csr_array

WATER_PER_MM = 0.0193
_SLAB = 64


def projection_noise(
    hu_ZYX: NDArray[np.float32], pixel_mm: float, noise_hu: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise in HU of a scan of `hu_ZYX` whose tube current gives about `noise_hu` on the axis of a median slice.

    Independent between slices, correlated within them, larger behind more tissue. The rows' and columns' spacing is
    `pixel_mm`. A dose of 1/k has `noise_hu`·√k.
    """
    nz, rows, columns = hu_ZYX.shape
    angles = _num_angles(rows)
    line_ATZ = _line_integrals(hu_ZYX, pixel_mm, angles)
    photons = _photons(line_ATZ, pixel_mm, noise_hu, angles)
    back = _back_projection(rows, columns, angles)
    noise = np.empty((nz, rows, columns), np.float32)
    scale = np.float32(np.pi / angles / pixel_mm * 1000 / WATER_PER_MM)
    for first in range(0, nz, _SLAB):
        clean = line_ATZ[..., first : first + _SLAB].astype(np.float64)
        counts = rng.poisson(photons * np.exp(-clean))
        error = (-np.log(np.maximum(counts, 1) / photons) - clean).astype(np.float32)
        filtered = _filtered(error).reshape(-1, error.shape[-1])
        noise[first : first + _SLAB] = (back @ filtered).T.reshape(-1, rows, columns) * scale
    return noise


def white_noise(
    reference: NDArray[np.float32], inside: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Uncorrelated noise with the standard deviation that `reference` has inside the body."""
    std = reference[inside].std() if inside.any() else reference.std()
    return rng.standard_normal(reference.shape, dtype=np.float32) * np.float32(std)


def _num_angles(rows: int) -> int:
    return int(np.clip(rows * 0.7, 48, 180))


def _num_bins(rows: int, columns: int) -> int:
    return int(np.ceil(np.hypot(rows, columns))) + 3


def _photons(line_ATZ: NDArray, pixel_mm: float, noise_hu: float, angles: int) -> float:
    """Photons per detector bin that give `noise_hu` on the axis of the slice with median attenuation."""
    bins = line_ATZ.shape[1]
    centre = np.exp(line_ATZ[:, bins // 2 - 2 : bins // 2 + 3].astype(np.float64)).mean((0, 1))
    kernel = _kernel(bins)
    power = (2 / 3) * (kernel**2).sum() + (1 / 3) * (kernel[1:] * kernel[:-1]).sum()
    gain = np.pi**2 / angles * power / pixel_mm**2
    return float(gain * np.median(centre) / (noise_hu * WATER_PER_MM / 1000) ** 2)


def _line_integrals(hu_ZYX: NDArray[np.float32], pixel_mm: float, angles: int) -> NDArray[np.float32]:
    """Attenuation along every ray (angle, bin, slice), from coarser pixels: it only sets how many photons arrive."""
    nz, rows, columns = hu_ZYX.shape
    step = next(n for n in (8, 4, 2, 1) if rows % n == 0 and columns % n == 0 and rows // n >= 20)
    small = hu_ZYX.reshape(nz, rows // step, step, columns // step, step).mean((2, 4))
    mu = np.maximum(small * np.float32(0.001) + 1, 0) * np.float32(WATER_PER_MM)
    forward = _back_projection(rows // step, columns // step, angles).T
    coarse_bins = _num_bins(rows // step, columns // step)
    sums = (forward @ mu.reshape(nz, -1).T) * np.float32(pixel_mm * step)
    coarse = sums.reshape(angles, coarse_bins, nz)
    bins = _num_bins(rows, columns)
    place = np.clip((np.arange(bins) - (bins - 1) / 2) / step + (coarse_bins - 1) / 2, 0, coarse_bins - 1.001)
    left, share = place.astype(int), (place % 1).astype(np.float32)[:, None]
    return coarse[:, left] * (1 - share) + coarse[:, left + 1] * share


@lru_cache(maxsize=4)
def _back_projection(rows: int, columns: int, angles: int) -> csr_array:
    """Sparse (pixels, angles·bins): each pixel reads every angle's two nearest bins, linearly."""
    bins = _num_bins(rows, columns)
    theta = np.arange(angles) * np.pi / angles
    y, x = np.meshgrid(np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2, indexing="ij")
    place = x.reshape(-1, 1) * np.cos(theta) + y.reshape(-1, 1) * np.sin(theta) + (bins - 1) / 2
    left = np.floor(place)
    share = (place - left).astype(np.float32)
    index = (left.astype(np.int32) + np.arange(angles, dtype=np.int32) * bins)[..., None] + np.arange(2, dtype=np.int32)
    weight = np.stack([1 - share, share], axis=-1)
    start = np.arange(rows * columns + 1, dtype=np.int32) * (2 * angles)
    return csr_array((weight.ravel(), index.ravel(), start), shape=(rows * columns, angles * bins))


@lru_cache(maxsize=4)
def _kernel(bins: int) -> NDArray[np.float64]:
    """The Hann-windowed ramp filter's taps −bins … bins, for bins one pixel wide."""
    size = 4 * bins
    taps = np.zeros(size)
    taps[0] = 0.25
    odd = np.arange(1, size // 2, 2)
    taps[odd] = taps[-odd] = -1 / (np.pi * odd) ** 2
    response = np.fft.fft(taps).real * (0.5 + 0.5 * np.cos(2 * np.pi * np.fft.fftfreq(size)))
    return np.fft.fftshift(np.fft.ifft(response).real)[size // 2 - bins : size // 2 + bins + 1]


def _filtered(sinogram_ATZ: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sinogram under the ramp filter; a Fourier transform, whose result no number of threads changes."""
    bins = sinogram_ATZ.shape[1]
    response = _response(bins)
    size = 2 * (len(response) - 1)
    spectrum = fft.rfft(sinogram_ATZ, size, axis=1) * response[:, None]
    return fft.irfft(spectrum, size, axis=1)[:, :bins]


@lru_cache(maxsize=4)
def _response(bins: int) -> NDArray[np.float32]:
    size = fft.next_fast_len(2 * bins, real=True)
    size += size % 2
    kernel = _kernel(bins)
    circular = np.zeros(size)
    circular[:bins], circular[size - bins + 1 :] = kernel[bins : 2 * bins], kernel[1:bins]
    return fft.rfft(circular).real.astype(np.float32)
