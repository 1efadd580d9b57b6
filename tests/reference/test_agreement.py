"""The system and the reference agree: the same batches and cuts, learned by two codes, one of
them real processes."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.learning.replayed import replay
from everspun.launcher.broker import why_not_embedded, why_not_kafka

#: Large enough for three cuts that differ; MovieLens comes by user, so a prefix is no sample of the
#: whole.
IMPRESSIONS = 15_000
DIFFERENCE_MAX = 0.002

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.processes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not list(Path("~/.cache/everspun").expanduser().glob("recbole-1.2.1-*.whl")),
        reason="the MovieLens log is not in ~/.cache/everspun; `make demo` fetches it",
    ),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="everspun-"))  # short: sockets lie in it
    yield path
    shutil.rmtree(path, ignore_errors=True)


def broker() -> str:
    if "EVERSPUN_KAFKA" in os.environ:
        return os.environ["EVERSPUN_KAFKA"]
    if why_not_kafka() and (reason := why_not_embedded()):
        pytest.skip(reason)
    return "auto"


def test_both_losses_agree_with_an_independent_replay(folder: Path):
    """At staleness 0, as the reference has none. Rows of the same user follow each other, so a
    batch that is predicted before its predecessor was applied is worth more than the difference
    allowed here."""
    few = (f"replay.limit={IMPRESSIONS}", "replay.attacks=false", "run.fraud=0")
    run = replay(folder, broker(), (*few, "paramserver.staleness=0"))
    assert run.restarts == {}
    assert run.rejected_cuts == 0
    assert len(run.progress.cuts) >= 3
    assert run.quality.rows == run.quality.served_rows == run.reference["rows"] == IMPRESSIONS
    assert run.quality.normalized_entropy == pytest.approx(
        run.reference["progressive"], abs=DIFFERENCE_MAX
    )
    assert run.quality.served_normalized_entropy == pytest.approx(
        run.reference["as_served"], abs=DIFFERENCE_MAX
    )
    assert (
        run.reference["as_served"] - run.reference["progressive"] > 5 * DIFFERENCE_MAX
    )  # two losses, not one
