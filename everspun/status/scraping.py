"""Reading what running roles report: their role files and their Prometheus metrics."""

import http.client
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from everspun.launcher import role_files
from stream import INSTANCE, PROCESS

TIMEOUT_S = 1.0
_ANSWER_BYTES_MAX = 16_777_216
ASKED_AT_ONCE = 16
#: What stands in HTTP_PROXY is for the internet.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

#: One series: (name, labels) -> value.
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Report:
    """The metrics of one process at one moment."""

    def __init__(self, series: Series) -> None:
        self.series = series

    def value(self, name: str, default: float = 0.0, **labels: str) -> float:
        """The sum of all series of this name that carry these labels."""
        wanted = set(labels.items())
        found = [v for (n, ls), v in self.series.items() if n == name and wanted <= set(ls)]
        return sum(found) if found else default

    def by_label(self, name: str, label: str) -> dict[str, float]:
        out: dict[str, float] = defaultdict(float)
        for (n, labels), value in self.series.items():
            if n == name:
                out[dict(labels).get(label, "")] += value
        return dict(out)

    def waiting(self) -> str:
        return next(
            (reason for reason, on in self.by_label("everspun_waiting", "reason").items() if on), ""
        )


@dataclass(frozen=True)
class ScrapeAnswer:
    """What a process said at its address. `process`: `<role>-<index>`, "" where it does not say."""

    process: str
    instance: str
    report: Report


def local_places(run_dir: Path) -> dict[str, tuple[str, int]]:
    """Name of a process -> where it answers, as the role files of this host say."""
    return {
        name: (str(said.get("metrics_host", "127.0.0.1")), said["metrics_port"])
        for name, said in role_files(run_dir).items()
        if type(said.get("metrics_port")) is int and 0 < said["metrics_port"] < 65_536
    }


def scrape(run_dir: Path) -> dict[str, Report]:
    """A report of every role on this host that answers; one that does not answer within a second is
    left out."""
    answers = ask(local_places(run_dir))
    return {name: answer.report for name, answer in answers.items()}


def ask(places: Mapping[str, tuple[str, int]]) -> dict[str, ScrapeAnswer]:
    """What answers at these (host, port)s within a second; the rest is left out."""
    with ThreadPoolExecutor(max_workers=max(1, min(ASKED_AT_ONCE, len(places)))) as pool:
        answers = pool.map(fetch, places.values())
        return {n: answer for n, answer in zip(places, answers, strict=True) if answer is not None}


def fetch(place: tuple[str, int]) -> ScrapeAnswer | None:
    """None for one that is starting, draining or dead, or whose name is not known, and for somebody
    else who answers at its place."""
    host, port = place
    url = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
    try:
        with _DIRECT.open(url, timeout=TIMEOUT_S) as answer:
            text = answer.read(_ANSWER_BYTES_MAX).decode(errors="replace")
            process, instance = (answer.headers.get(name, "") for name in (PROCESS, INSTANCE))
        return ScrapeAnswer(process, instance, Report(_series(text)))
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        return None


def _series(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def quantile(buckets: dict[str, float], q: float) -> float | None:
    """The q-quantile of a Prometheus histogram's cumulative `le` buckets, as the upper bound that
    holds it; None where nothing was counted."""
    rows = sorted((float(le), count) for le, count in buckets.items())
    if not rows or rows[-1][1] == 0:
        return None
    total = rows[-1][1]
    return next(le for le, count in rows if count >= q * total)
