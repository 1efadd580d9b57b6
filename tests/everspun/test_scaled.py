"""Shards come and go under a run of real processes."""

from collections.abc import Callable

import pytest
from staged_run import CHAIN, IMPRESSIONS, WITHOUT_TORCH, Run, stage

from everspun import __main__ as front_door
from everspun.audit import of_shards
from everspun.commands.system import full_audit

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]


def test_shards_come_and_go_while_events_flow_and_no_batch_is_lost_or_doubled(
    start_run: Callable[..., Run],
):
    """One shard, two, one: the first move under a kill -9 of the clock holder, the second with
    one of what leaves."""
    run = start_run("scaled.", WITHOUT_TORCH)
    command, launcher = run.command(), run.local.launcher
    half = len(stage(0)) // 2
    run.write(stage(0)[:half])
    run.until(lambda: run.learned(40), "nothing is learned")
    assert front_door.main(["shards", "scale", "2", "--wait-s", "0", *command]) == 0
    launcher.kill("shard", 0)
    run.write(stage(0)[half:])
    assert front_door.main(["shards", "scale", "2", *command]) == 0
    run.until(lambda: run.checkpoint(1), "no checkpoint of barrier 1")

    run.write(stage(1)[:half])
    run.until(lambda: run.learned(IMPRESSIONS + 40), "stage 1 is not learned")
    standing, _ = of_shards(run.config)
    assert [one.who for one in standing] == ["shard 0", "shard 1"]
    assert min(one.progress.chains[CHAIN].rows for one in standing) > IMPRESSIONS
    assert front_door.main(["shards", "scale", "1", "--wait-s", "0", *command]) == 0
    launcher.kill("shard", 1)
    run.write(stage(1)[half:])
    assert front_door.main(["shards", "scale", "1", *command]) == 0
    run.until(lambda: "shard-1" not in launcher.processes, "the shard that is over does not end")
    run.until(lambda: run.checkpoint(2), "no checkpoint of barrier 2")
    maps = [
        run.catalogue.slot_map(e.manifest)
        for e in run.catalogue.entries()
        if e.manifest is not None
    ]
    assert [(m.epoch, m.shards) for m in dict.fromkeys(maps) if m is not None] == [
        (1, 1),
        (2, 2),
        (3, 1),
    ]
    audit = full_audit(run.config, run.local.log(), at_rest=True)
    assert audit.right, audit.findings
    assert run.learned(2 * IMPRESSIONS)
    run.forget()
