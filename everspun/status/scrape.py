"""Reading what running roles report: their role files and their Prometheus metrics over
loopback."""

import http.client
import urllib.error
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from everspun.launcher.launcher import role_files

TIMEOUT_S = 1.0
_ANSWER_BYTES_MAX = 16_777_216
#: What stands in HTTP_PROXY is for other hosts.
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))

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


def scrape(run_dir: Path) -> dict[str, Report]:
    """A report of every role that answers; one that does not answer within a second is left out."""
    ports = {name: info.get("metrics_port") for name, info in role_files(run_dir).items()}
    asked = {name: port for name, port in ports.items() if type(port) is int and 0 < port < 65_536}
    with ThreadPoolExecutor(max_workers=max(1, min(8, len(asked)))) as pool:
        answers = pool.map(_fetch, asked.values())
        return {
            name: Report(series)
            for name, series in zip(asked, answers, strict=True)
            if series is not None
        }


def _fetch(port: int) -> Series | None:
    try:
        with _LOOPBACK.open(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
            text = answer.read(_ANSWER_BYTES_MAX).decode(errors="replace")
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return None  # starting, draining or dead: the caller sees it missing
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
