"""Features of real volumes, kept in the lake: a large network looks at the same real set once, not in every sweep.

`features/<extractor>/<digest>.npz`, by the bytes of the volumes themselves: other data, another window, another number
of cases are other features. A file that cannot be read is made anew.
"""

import io
import logging
import re
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from evaluation.extractor_files import RANDOM
from evaluation.extractors import Extractor
from infra.fingerprint import digest
from infra.lake import Lake

logger = logging.getLogger(__name__)
Features = dict[str, NDArray[np.float64]]


def features_of(lake: Lake, volumes_BZYX: NDArray, extractor: Extractor) -> Features:
    """What `extractor.extract` gives for volumes on [-1, 1]; the random network is quicker than the lake."""
    if extractor.name == RANDOM:
        return extractor.extract(volumes_BZYX)
    values = np.ascontiguousarray(volumes_BZYX, np.float32)
    shape = "x".join(map(str, values.shape))
    folder = re.sub(r"[^a-z0-9.]+", "-", extractor.name)
    key = f"features/{folder}/{shape}-{digest(values.tobytes())}.npz"
    try:
        with np.load(io.BytesIO(lake.read(key)), allow_pickle=False) as kept:
            return {name.removeprefix("plane "): kept[name] for name in kept.files}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        logger.warning("the features %s cannot be read (%s) and are made anew", lake.url_of(key), error)
    found = extractor.extract(values)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"plane {plane}": values for plane, values in found.items()})  # ty: ignore[invalid-argument-type]
    lake.write(key, buffer.getvalue())
    return found
