"""What the tests of writers share: a case of given files, and a result in which a box of it has changed."""

from pathlib import Path

import numpy as np

from preprocessing.case import Case
from preprocessing.decoding.decode import read_image

BOX = (slice(2, 5), slice(3, 9), slice(4, 8))


def case_of(*images: Path, **fields) -> Case:
    """A case of an image file, or of the files of a series; a folder stands for what is in it."""
    files = [file for image in images for file in (sorted(image.iterdir()) if image.is_dir() else [image])]
    return Case(**{"source": "folder", "id": "thorax-7", "patient": "x", "image": tuple(map(str, files)), **fields})


def result_of(case: Case, *, low=-900, high=1200, seed=3) -> tuple[np.ndarray, np.ndarray]:
    """The HU of a case with new ones in `BOX`, and where they truly differ."""
    source = read_image(case).image
    after = source.copy()
    after[BOX] = np.random.default_rng(seed).integers(low, high, after[BOX].shape)
    return after, after != source
