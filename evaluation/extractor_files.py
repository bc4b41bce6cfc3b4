"""Where the weights of feature networks lie, and which ones they are. Needs no torch.

`<MEDDIFF_HOME>/features/<name>.pth`, or the folder in `MEDDIFF_FEATURES`. Nothing is ever downloaded: the files are
MedicalNet's `resnet_50.pth` (TencentMedicalNet/MedicalNet-Resnet50 on Hugging Face) and RadImageNet's ResNet-50 for
PyTorch, and have licences of their own.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from infra.errors import UserError
from infra.settings import Settings, load_settings

ExtractorName = Literal["random-conv3d-seed0", "medicalnet-resnet50-3d", "radimagenet-resnet50-2.5d"]
RANDOM: ExtractorName = "random-conv3d-seed0"
SHORT = 8  # characters of a digest in a metric's name


def weights_path(name: ExtractorName, settings: Settings | None = None) -> Path:
    """Where the weights of an extractor are looked for."""
    settings = settings or load_settings()
    return (settings.features or settings.home / "features") / f"{name}.pth"


def weights_digests(names: Sequence[ExtractorName]) -> dict[str, str]:
    """The SHA-256 of each extractor's weights; "" where they are not there. The random one has none."""
    paths = {name: weights_path(name) for name in names if name != RANDOM}
    return {name: _digest(path, *_state(path)) if path.is_file() else "" for name, path in paths.items()}


def require_weights(name: ExtractorName) -> Path:
    """The file of an extractor's weights.

    Raises:
        UserError: it is not there.
    """
    path = weights_path(name)
    if not path.is_file():
        raise UserError(
            f"the weights of {name} are not at {path}: put them there or name their folder in MEDDIFF_FEATURES"
        )
    return path


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
