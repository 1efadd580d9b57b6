"""The reference agrees with river's FTRL-Proximal, which neither of us wrote."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from river import optim

SPEC = importlib.util.spec_from_file_location(
    "reference_replay", Path(__file__).with_name("replay.py")
)
assert SPEC is not None
assert SPEC.loader is not None
replay = importlib.util.module_from_spec(SPEC)
__import__("sys").modules["reference_replay"] = replay
SPEC.loader.exec_module(replay)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_ftrl_agrees_with_rivers(l2: float):
    """z and n after the same gradients (l1 = 0: within it river keeps a stale weight where the
    paper says 0)."""
    rng = np.random.default_rng(0)
    ours = replay.Ftrl(alpha=0.3, beta=1.0, l2=l2)
    theirs = optim.FTRLProximal(alpha=0.3, beta=1.0, l1=0.0, l2=l2)
    weights = dict.fromkeys(range(6), 0.0)
    for _ in range(300):
        keys = sorted(set(rng.integers(6, size=2).tolist()))
        label = float(rng.random() < 0.4)
        (p,) = ours.train([([(key, 1.0) for key in keys], label)])
        weights = theirs.step(weights, dict.fromkeys(keys, p - label))
    for k in weights:
        assert ours.z[k] == pytest.approx(theirs.z[k], rel=1e-9)
        assert ours.n[k] == pytest.approx(theirs.n[k], rel=1e-9)


def test_normalized_entropy_of_the_mean_rate_is_one():
    pairs = [(0.25, y) for y in (1, 0, 0, 0)] * 100
    assert replay.normalized_entropy(pairs) == pytest.approx(1.0)
