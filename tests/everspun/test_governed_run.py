"""A governor beside a run of real processes."""

from collections.abc import Callable

import pytest
from staged_run import STAGES, Run, stage

from everspun import __main__ as front_door
from everspun.status import scrape
from everspun.status.governed import Governed, governed
from paramserver import PaceLevel
from paramserver.wire import connect

# A retrained model runs under a governor in `make test` (test_retrained.py); here it measures,
# which takes longer.
pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_governor_holds_its_lease_and_measures_nothing_where_nothing_is_stale(
    start_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
):
    """The operator allows s = 4; a governor that begins slowest holds it at 0, where one learner
    is a sequence."""
    governor = ('governor.begin="slowest"', "governor.window_batches=10", "governor.share_max=1.0")
    times = ("governor.poll_ms=100", "governor.lease_ms=1500", "paramserver.staleness=4")
    run = start_run("governed.", "governor.enabled=true", *governor, *times)
    shards, clock = connect(run.config.paramserver, run.config.run.dir, 1)

    def in_force() -> tuple[str, PaceLevel]:
        bounds = clock.bounds(run.config.model.name)
        return bounds.governor, bounds.in_force

    def found() -> Governed | None:
        report = scrape(run.dir).get("governor-0")
        return None if report is None else governed(report, 0)

    run.until(lambda: in_force() == ("governor-0", PaceLevel(0)), "the governor says nothing")
    for number in range(
        4 * STAGES
    ):  # it compares what follows a cut after the first that it has seen, late or soon
        run.write(stage(number))
        run.until(lambda: run.checkpoint(number + 1), f"no checkpoint of barrier {number + 1}")  # noqa: B023
        if (said := found()) is not None and said.estimates:
            break
    run.until(lambda: (said := found()) is not None and said.estimates, "no estimate")
    said = found()
    assert said is not None
    assert abs(said.excess) < 1e-3
    assert said.error < 1e-3
    assert front_door.main(["staleness", *run.command()]) == 0
    told = capsys.readouterr().out
    assert "s = 0 in force" in told
    assert "as configured: s = 4" in told
    assert "governor-0: s = 0" in told

    frozen = run.local.launcher.freeze("governor", 0)
    run.until(lambda: in_force() == ("", PaceLevel(4)), "the lease does not run out")
    frozen.kill()
    run.until(
        lambda: in_force() == ("governor-0", PaceLevel(0)),
        "a governor that is started again says nothing",
    )
    for port in (*shards.values(), clock):
        port.close()
    run.forget()
