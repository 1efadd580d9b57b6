"""Runs of `verdicts` that may take something back, and who decides on them (L3, C1)."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from labeler.labels import VerdictPoint
from labeler.retraction.late_verdicts import RUN_OFFSETS, LateVerdicts
from stream import Record
from stream.internal_topics import ALLOW, REJECT, Verdict, Watermark, encode_verdict

ZERO = 1_600_000_000_000


def verdict(id, source, decision=REJECT, first_s=0, last_s=6):
    between = ZERO + first_s * 1_000, ZERO + last_s * 1_000
    return Verdict(id, "operator", decision, source, None, *between, "told")


def late_verdicts(point=None, horizon_ms=10_000):
    return LateVerdicts(["a", "b"], point or VerdictPoint(0, {}), 1_000, 0, horizon_ms)


def records_of(*said, first=0):
    return [Record(first + n, 0, None, encode_verdict(one)) for n, one in enumerate(said)]


def mark(name, second):
    return Watermark(name, ZERO + second * 1_000, 0)


LOG = [
    mark("a", 0),
    mark("b", 0),
    verdict("early", "u"),
    mark("a", 5),
    mark("b", 5),
    verdict("1", "u", first_s=0, last_s=1),
    verdict("2", "w", first_s=0, last_s=1),
    mark("a", 6),
    verdict("3", "u", first_s=1, last_s=2),
    mark("b", 30),
    verdict("4", "u", first_s=20, last_s=25),
    mark("a", 31),
]


def deciding(late, run):
    return [one.verdict.id for one in late.late(run).deciding]


def test_a_run_ends_behind_the_last_late_verdict_before_a_watermark():
    late = late_verdicts()
    late.read(records_of(*LOG))
    assert [(run.first, run.end) for run in late.runs] == [(5, 7), (8, 9)]
    assert late.runs[0].low_ms == ZERO + 5_000
    assert deciding(late, late.runs[1]) == ["1", "2", "3"]


def test_read_on_from_a_run_the_next_ones_are_the_same():
    for horizon_ms in (10_000, 4_500):
        late = late_verdicts(horizon_ms=horizon_ms)
        late.read(
            records_of(*LOG, mark("b", 40), verdict("5", "u", first_s=1, last_s=9), mark("a", 50))
        )
        whole = late.runs
        for n, run in enumerate(whole):
            again = late_verdicts(run.point, horizon_ms)
            again.read(
                records_of(
                    *LOG, mark("b", 40), verdict("5", "u", first_s=1, last_s=9), mark("a", 50)
                )
            )
            rest = [one for one in again.runs if one.end > run.end]
            assert [one.end for one in rest] == [one.end for one in whole[n + 1 :]]
            assert [(one.low_ms, one.point, one.verdicts) for one in rest] == [
                (one.low_ms, one.point, one.verdicts) for one in whole[n + 1 :]
            ]
            assert [deciding(again, one) for one in rest] == [
                deciding(late, one) for one in whole[n + 1 :]
            ]


class PlainLateVerdicts:
    """The same rules, with everything looked at anew at each run's end."""

    def __init__(self, point, horizon_ms):
        self.horizon_ms, self.kept, self.ids, self.open, self.runs = horizon_ms, [], set(), None, []
        self.marks = {name: point.watermarks.get(name, 0) for name in ("a", "b")}
        self.next_offset = point.offset

    def read(self, log):
        for offset, said in enumerate(log):
            if offset < self.next_offset:
                continue
            low_ms = min(self.marks.values())
            if isinstance(said, Watermark):
                if self.open:
                    self.close(*self.open, low_ms)
                self.open = None
                self.marks[said.input] = max(self.marks[said.input], said.watermark_ms)
            elif said.id not in self.ids:
                late = said.decision == REJECT and said.from_ms + 1_000 < low_ms
                if late or said.decision == ALLOW:
                    self.ids.add(said.id)
                    self.kept.append((offset, said, dict(self.marks)))
                if late:
                    self.open = (self.open[0] if self.open else offset, offset + 1)

    def close(self, first, end, low_ms):
        self.kept = [one for one in self.kept if one[1].to_ms > low_ms - self.horizon_ms]
        self.ids = {said.id for _, said, _ in self.kept}
        point = (self.kept[0][0], self.kept[0][2]) if self.kept else (end, dict(self.marks))
        own = [said.id for offset, said, _ in self.kept if first <= offset < end]
        deciding = [said.id for offset, said, _ in self.kept if offset < end]
        self.runs.append((first, end, low_ms, point, own, deciding))


def seen(late, run):
    own = [one.verdict.id for one in run.verdicts]
    return (run.first, run.end, run.low_ms, tuple(run.point), own, deciding(late, run))


SAID = st.one_of(
    st.builds(mark, st.sampled_from("ab"), st.integers(0, 40)),
    st.builds(
        lambda name, first_s, length_s, decision: replace(
            verdict(name, "u", first_s=first_s, last_s=first_s + length_s), decision=decision
        ),
        st.sampled_from("123456") | st.integers(10, 10**9).map(str),  # some are said again
        st.integers(0, 40),
        st.integers(1, 5),
        st.sampled_from((REJECT, REJECT, REJECT, ALLOW)),
    ),
)


@given(st.lists(SAID, max_size=60), st.integers(0, 12_000), st.integers(0, 3), st.data())
def test_runs_and_who_decides_on_them_are_a_function_of_the_log(log, horizon_ms, behind, data):
    """Wherever a labeler begins, and however far it is behind with what it forgets."""
    plain = PlainLateVerdicts(VerdictPoint(0, {}), horizon_ms)
    plain.read(log)
    late = late_verdicts(horizon_ms=horizon_ms)
    found = []
    for at, record in enumerate(records_of(*log)):
        late.read([record])
        known = [one[1] for one in found]
        found += [seen(late, run) for run in late.runs if run.end not in known]
        if data.draw(st.booleans(), label=f"forgets at {at}") and len(found) > behind:
            late.forget(found[-1 - behind][1])
    assert found == plain.runs
    ids = [said.id for said in log if isinstance(said, Verdict)]
    for n, run in enumerate(plain.runs if len(set(ids)) == len(ids) else ()):
        again = late_verdicts(VerdictPoint(*run[3]), horizon_ms)
        again.read(records_of(*log))
        assert [seen(again, one) for one in again.runs if one.end > run[1]] == plain.runs[n + 1 :]


def test_without_late_verdicts_a_chain_goes_on_all_the_same():
    late = late_verdicts()
    late.read(records_of(*[mark("a", n) for n in range(20)], first=RUN_OFFSETS - 10))
    assert [(run.first, run.end, run.empty) for run in late.runs] == [
        (RUN_OFFSETS, RUN_OFFSETS, True)
    ]


def test_what_says_nothing_is_passed_over():
    late = late_verdicts()
    late.read(
        [Record(0, 0, None, b"{}"), Record(1, 0, None, None), *records_of(mark("c", 1), first=2)]
    )
    assert late.next_offset == 3
    assert not late.runs
