"""Series of metrics go when what they name is no more."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

from labeler.breaker.metrics import BreakerMetrics
from labeler.process.metrics import LabelerMetrics


class _Nothing(int):
    """0, of which every attribute, element and answer is 0."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(0)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Any:
        return iter(())

    def __call__(self, *given: object) -> Any:
        return _Nothing(0)

    def __getitem__(self, key: object) -> Any:
        return _Nothing(0)


def _named(**attributes: object) -> _Nothing:
    """The same, with some attributes."""
    made = _Nothing(0)
    made.__dict__ |= attributes
    return made


def samples(metrics: Any, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        if family.name == name
        for sample in family.samples
    }


def test_of_a_scope_that_is_withheld_no_more():
    metrics, shown = BreakerMetrics(), []
    for vendors in (["a", "b"], ["b"], ["b"], [], []):
        trips = {("vendor", vendor): SimpleNamespace(rule="clicks") for vendor in vendors}
        bands = SimpleNamespace(scopes=[])
        judge = _named(breaker=_named(trips=trips, bands=bands))
        metrics.look(_named(tasks={}, waiting="none"), judge)
        found = samples(metrics, "everspun_breaker_withheld")
        shown.append({scope.removeprefix("vendor="): value for (scope, _), value in found.items()})
    assert shown == [{"a": 1, "b": 1}, {"a": 0, "b": 1}, {"b": 1}, {"b": 0}, {}]


def test_of_names_that_no_partition_counts_any_more(monkeypatch: Any):
    metrics = LabelerMetrics()
    for hidden in ("_show_missing", "_show_clocks", "_show_stops"):
        monkeypatch.setattr(metrics, hidden, lambda *_: None)
    joined = SimpleNamespace(catalogues=SimpleNamespace(joined=None))
    for life in range(3):
        core = _named(undeclared=Counter({f"name-{life}": 2}))
        task = _named(core=core)
        line = _named(tasks={0: task}, joined=joined, waiting="none", verdict_index=None)
        metrics.look(line, _Nothing(0), False)
    assert samples(metrics, "everspun_labeler_undeclared_features") == {("name-2",): 2.0}
