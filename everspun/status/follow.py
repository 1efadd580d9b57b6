"""Following a running system from outside: its processes' metrics, and the records of
`evaluations`."""

from rich.panel import Panel

from everspun.config import Config
from everspun.status.discovery import scrape_all
from everspun.status.quality import Quality
from everspun.status.scraping import Report
from everspun.status.table import StatusSnapshot, render, snapshot
from everspun.status.usual_rate import UsualRate
from stream import Partition
from stream.log import Log, LogError, OffsetOutOfRange

EVALUATIONS_PER_LOOK = 5_000
#: Samples kept for the plots; older ones are thinned to every second one when this is reached.
SAMPLES_MAX = 2_000
#: Evaluations that a look at a run that is under way begins with.
RECENT_EVALUATIONS = 2_000
#: Between two looks at a run that nobody is shown, ms: each asks all processes on all hosts.
UNSEEN_EVERY_MS = 5_000


class StatusFollower:
    """Belongs to one thread. `look` now and then; `quality` and `samples` are what has been
    seen."""

    def __init__(self, config: Config, log: Log, evaluations_max: int | None = None) -> None:
        """`evaluations_max`: begin so many before the end of `evaluations`; None = at their
        beginning."""
        self.config = config
        self.quality = Quality(config.model.name)
        self.samples: list[StatusSnapshot] = []
        self.answered = True  # whether the broker did, when asked last
        self.reports: dict[str, Report] = {}  # of the last look
        self._partition = Partition(config.stream.evaluations, 0)
        self._reader = log.reader()
        self._sought, self._tail = False, evaluations_max

    def look(self, now_ms: int, evaluations: bool = True) -> StatusSnapshot:
        """Take a sample at the data's clock `now_ms`, and read what `evaluations` have come."""
        if evaluations:
            self.read_evaluations()
        before = self.samples[-1] if self.samples else None
        self.reports = scrape_all(self.config)
        shot = snapshot(self.reports, now_ms, before)
        self.samples.append(shot)
        if len(self.samples) > SAMPLES_MAX:
            self.samples = self.samples[::2]
        return shot

    def read_evaluations(self, timeout_ms: int = 20) -> int:
        """Read on in `evaluations`; how many new ones there were. A broker that is gone is asked
        at the next look."""
        try:
            if not self._sought:
                self._seek()
            records = self._reader.poll(EVALUATIONS_PER_LOOK, timeout_ms).get(self._partition, [])
        except OffsetOutOfRange:
            self._sought = False  # retention was faster, or the topic was made anew
            return 0
        except LogError:
            self.answered = False
            return 0
        self.answered = True
        return sum(self.quality.add(record.value) for record in records if record.value)

    def _seek(self) -> None:
        self._reader.assign([self._partition])
        begin = self._reader.beginning_offsets([self._partition])[self._partition]
        if self._tail is not None:
            begin = max(
                begin, self._reader.end_offsets([self._partition])[self._partition] - self._tail
            )
        self._reader.seek(self._partition, begin)
        self._sought = True

    def panel(self, title: str, note: str = "") -> Panel:
        return render(self.samples[-1], self.quality, title, note)

    def close(self) -> None:
        self._reader.close()


def follow_rate(follower: StatusFollower, usual: UsualRate, now_ms: int, shown: bool) -> None:
    """Tell `usual` what rows came to the labelers since the last look. While the run is `shown` to
    somebody each call is a look; otherwise it is for the rate alone, which needs one now and then
    and no evaluations."""
    before = follower.samples[-1] if follower.samples else None
    if not shown and before and 0 <= now_ms - before.now_ms < UNSEEN_EVERY_MS:
        return
    rows = follower.look(now_ms, evaluations=shown).stages["labeler"].records_in
    seen = before.stages["labeler"].records_in if before else 0.0
    usual.look(now_ms, max(0.0, rows - seen))
