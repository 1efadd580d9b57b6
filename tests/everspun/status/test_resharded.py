"""What the status page says of shards that were scaled."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from checkpointer.cuts.step import MovePause
from checkpointer.metrics import CheckpointerMetrics
from everspun.launcher.run_files import shards_needed
from everspun.status.resharded import resharded
from everspun.status.scraping import Report
from paramserver.clocks import Clocks
from paramserver.server import Metrics


def report(registry) -> Report:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return Report(
        {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}
    )


def test_what_is_wanted_and_how_long_the_last_move_took():
    shard, checkpointer = Metrics(), CheckpointerMetrics()
    assert resharded({}) is None
    assert resharded({"shard-0": report(shard.registry)}) is None
    clocks = Clocks(1, 2)
    shard.map_epoch.set(1)
    shard.clocks(clocks, 0, needed=3)
    said = resharded({"shard-0": report(shard.registry)})
    assert said is not None
    assert said.line() == "shards 2 (map 1), 3 wanted"
    clocks.remap(2, 3)
    shard.map_epoch.set(2)
    shard.clocks(clocks, 0, needed=3)
    checkpointer.moves.inc()
    for phase, ms in MovePause(5, 20, 30)._asdict().items():
        checkpointer.move_pause_ms.labels(phase=phase).set(ms)
    said = resharded(
        {"shard-0": report(shard.registry), "checkpointer-0": report(checkpointer.registry)}
    )
    assert said is not None
    assert said.line() == "shards 3 (map 2)   last move stopped starts for 55 ms"


def test_the_launcher_runs_as_many_as_the_clock_holder_says(tmp_path):
    assert shards_needed(tmp_path) == (0, False)
    (tmp_path / "roles").mkdir()
    path = tmp_path / "roles" / "shard-0.json"
    said = '{"pid": 1, "processes": 3, "settled": true}'
    for text, expected in (('{"pid": 1}', (0, False)), (said[:20], (0, False)), (said, (3, True))):
        path.write_text(text)
        assert shards_needed(tmp_path) == expected
