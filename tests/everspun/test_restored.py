"""Training goes on from an older checkpoint of a run of real processes, one that is loaded from a base and deltas."""

from collections.abc import Callable

import pytest
from staged_run import STAGES, Run, play

from everspun import __main__ as front_door
from everspun.commands.system.audit import full_audit

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]


def test_training_goes_on_from_a_delta_and_comes_to_the_same_model(
    start_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
):
    """The last stage is learned once more, from the checkpoint before it: bit for bit what was learned first."""
    run = start_run("restored.")
    play(run, lambda number: None)
    back, last = run.checkpoint(STAGES - 1), run.checkpoint(STAGES)
    assert back is not None
    assert last is not None
    assert len(run.catalogue.chain(back)) > 2, "a base and more than one delta (X2)"
    first = run.parameters(STAGES)
    labels = run.batches()
    run.close()

    assert front_door.main(["checkpoints", "restore", back.name, "--training", *run.command()]) == 0
    assert f"training goes on from {back.name}" in capsys.readouterr().out
    run.start_again()
    run.until(lambda: (found := run.checkpoint(STAGES)) and found.name != last.name, "the last stage is not cut again")
    again = run.checkpoint(STAGES)
    assert again is not None
    assert again.number > last.number
    assert run.catalogue.chain(again)[:-1] == run.catalogue.chain(back), "its parent is not what was restored"
    assert again.chains == last.chains
    second = run.parameters(STAGES)
    assert second.keys() == first.keys()
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), f"{name} differs"
    assert run.batches() == labels, "labels are written once"
    audit = full_audit(run.config, run.local.log(), at_rest=True)
    assert audit.right, audit.findings
    run.forget()
