"""A tiny real lake for the training tests: stored cases of a few dozen voxels, made in a second."""

import numpy as np
import pytest
import torch
from training_worlds import RECIPE, SMALL, make_lake

from training.config import PretrainConfig, TrainConfig


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and threads that wait for each other on a busy machine lose a lot."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_lake(tmp_path_factory):
    """A lake of 10 patients with chest and abdomen; half of them have a lesion."""
    return make_lake(tmp_path_factory.mktemp("training") / "lake")


@pytest.fixture(scope="session")
def recipe():
    return RECIPE


@pytest.fixture
def config():
    """Six iterations of a network of two levels on 8³ patches."""
    train = TrainConfig(
        iterations=6,
        batch_size=2,
        accumulate=1,
        learning_rate=1e-2,
        warmup=2,
        ema_decay=0.9,
        log_every=2,
        validate_every=3,
        checkpoint_every=2,
        validation_samples=6,
        picture_every=0,
    )
    return PretrainConfig(preset="test", model=SMALL, train=train)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
