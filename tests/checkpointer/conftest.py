"""Fixtures of tests of checkpoints; `checkpoint_maker` makes them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpointer.store import Definition, Manifest
from learners import ModelConfig

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_maker import (
    Write,
    define_model,
    manifest,
    model_config,
    train_checkpoint,
    write_checkpoint,
)


@pytest.fixture
def make() -> Callable[..., Manifest]:
    return manifest


@pytest.fixture
def write() -> Write:
    return write_checkpoint


@pytest.fixture(scope="session")
def define() -> Callable[..., Definition]:
    return define_model


@pytest.fixture
def train() -> Callable[..., Manifest]:
    return train_checkpoint


@pytest.fixture
def config_of() -> Callable[..., ModelConfig]:
    return model_config
