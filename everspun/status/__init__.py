"""What a running system says of itself: the live table, the referee, plots and the report.

- `catch_up`: how far each stage is behind the events, whether it catches up, and when (from two
  looks at what it has reached)
- `certificates`: certificates that the configuration names and that have expired, or soon will
- `discovery`: where the processes of a system answer, on this host and on others
- `follow`: following a running system from outside
- `governed`: what a governor says of itself, for the status page
- `inputs`: what is wrong with the inputs, as `everspun status` and the launcher's alarm say
  it
- `learning`: what learners could not use of what they read, as `everspun status` says it
- `plots`: the report's plots
- `quality`: the two losses, from the records of `evaluations`, never mixed
- `referee`: what `everspun status` calls wrong
- `report`: one HTML file that says how a run went
- `resharded`: how many shards there are, are wanted, and how long the last change stopped starts,
  for the status page (S6)
- `scraping`: reading what running roles report
- `table`: the live table
- `rate_file`: the usual rate of a stream as it is kept in the run's folder
- `usual_rate`: whether a stream has stopped, by its own usual rate at that hour of the week (pure)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.status import certificates, referee, report
    from everspun.status.catch_up import CatchUp, behind, near_retention
    from everspun.status.discovery import configured_places, scrape_all, unanswered
    from everspun.status.follow import RECENT_EVALUATIONS, StatusFollower, follow_rate
    from everspun.status.governed import words
    from everspun.status.inputs import InputWatch, input_faults
    from everspun.status.learning import feature_notes, learning_faults, missing_faults
    from everspun.status.quality import Quality, shown
    from everspun.status.rate_file import RateFile
    from everspun.status.scraping import Report, fetch, quantile, scrape
    from everspun.status.table import StatusSnapshot, duration
    from everspun.status.usual_rate import UsualRate
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "RECENT_EVALUATIONS",
    "CatchUp",
    "InputWatch",
    "Quality",
    "RateFile",
    "Report",
    "StatusFollower",
    "StatusSnapshot",
    "UsualRate",
    "behind",
    "certificates",
    "configured_places",
    "duration",
    "feature_notes",
    "fetch",
    "follow_rate",
    "input_faults",
    "learning_faults",
    "missing_faults",
    "near_retention",
    "quantile",
    "referee",
    "report",
    "scrape",
    "scrape_all",
    "shown",
    "unanswered",
    "words",
]
