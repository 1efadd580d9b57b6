"""What a governor's metrics say on the status page."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from everspun.commands.system.status import breaches
from everspun.config import Config
from everspun.status.governed import governed, words
from everspun.status.quality import Quality
from everspun.status.scraping import Report
from everspun.status.table import snapshot
from learners import GovernorConfig
from learners.governor import CompleteCut, GovernorMetrics
from learners.governor.controller import Governing
from paramserver import Bounds, ChainProgress, PaceLevel, Progress


def report(metrics: GovernorMetrics) -> Report:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return Report(
        {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}
    )


def cut(number: int) -> CompleteCut:
    return CompleteCut(
        number,
        f"c{number}",
        Progress({"label/0": ChainProgress(number, rows=10_000 * number)}, {}),
        {},
    )


def judge(core: Governing, metrics: GovernorMetrics, live: list[float], number: int) -> Report:
    core.saw(cut(number), 0)
    core.judged(live, [100.0, 100.0], 100, None)
    metrics.estimates.inc()
    metrics.decided_ms.set(5_000)
    metrics.look(core)
    return report(metrics)


def test_a_governor_is_shown_with_what_it_found_and_why():
    core, metrics = Governing(GovernorConfig(), "governor-0"), GovernorMetrics()
    metrics.look(core)
    assert governed(report(metrics), 0) is None
    core.bounded(Bounds(PaceLevel(4), False, 2))
    core.saw(cut(0), 0)
    metrics.look(core)
    said = governed(report(metrics), 0)
    assert said is not None
    assert said.line("") == "governor tightens nothing (operator: s = 4)   no estimate yet"

    said = governed(judge(core, metrics, [104.0, 104.0], 1), 7_500)
    assert said is not None
    assert (said.ordered, said.level, said.action, said.why) == (
        PaceLevel(4),
        PaceLevel(1),
        "slower",
        "beyond the band",
    )
    assert said.decided_s == 2.5
    line = said.line("2.5 s")
    assert line.startswith(
        "governor s = 1 (operator: s = 4)   cost +4.00% +- 0.00%   slower: beyond the band, 2.5 s "
        "ago"
    )

    said = governed(judge(core, metrics, [100.0, 100.0], 2), 7_500)
    assert said is not None
    assert (said.action, said.why) == ("hold", "within the band")  # one decision is shown, not two


def test_a_governor_at_its_end_breaks_a_limit():
    core, metrics = Governing(GovernorConfig(begin="slowest"), "governor-0"), GovernorMetrics()
    core.bounded(Bounds(PaceLevel(4), False, 2))
    core.saw(cut(0), 0)
    reports = {"governor-0": judge(core, metrics, [110.0, 110.0], 1)}
    shot = snapshot(reports, 0, None)
    assert any("slowest level" in line for line in breaches(Config(), shot, Quality("m"), reports))


def test_levels_in_words():
    assert [words(r) for r in (PaceLevel(-1), PaceLevel(3), PaceLevel(0, 2))] == [
        "unbounded",
        "s = 3",
        "s = 0, 2 at once",
    ]
