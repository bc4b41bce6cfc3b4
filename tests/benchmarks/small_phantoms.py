"""What benchmarks train in minutes: a lake of small phantoms from head to pelvis at 8 mm, and a small model."""

from infra.lake import Lake, open_lake
from preprocessing.ingest import ingest
from preprocessing.recipe import demo
from preprocessing.sources.phantom import PhantomSource
from training.config import ModelConfig, TrainConfig

RECIPE = demo().replace(name="bench-phantoms", spacing_mm=8.0, thumbnail_size=16, levels=2, chunk=16, shard=32)
PATIENTS = 24
MODEL = ModelConfig(
    patch=16,
    channels=(8, 16),
    attention=(False, True),
    norm_groups=4,
    head_channels=8,
    context_dim=16,
    anatomy_channels=8,
    position_frequencies=3,
)
TRAIN = TrainConfig(
    batch_size=8,
    accumulate=1,
    learning_rate=2e-3,
    warmup=20,
    validation_samples=0,
    validate_every=100_000,
    checkpoint_every=100_000,
    picture_every=0,
)


def phantom_lake(folder: str) -> Lake:
    """A lake with all the phantoms."""
    lake = open_lake(folder)
    ingest(lake, RECIPE, [PhantomSource(patients=PATIENTS, resolution="tiny", dose_pairs=False)])
    return lake
