"""`everspun fraud`: verdicts put together, an operator's override written and read back."""

from pathlib import Path

import pytest

from everspun.__main__ import main
from everspun.commands.data.fraud import cases, order
from everspun.launcher import Broker
from stream import StreamConfig
from stream.internal_topics import ALLOW, REJECT, Verdict
from stream.log import create_topics

HOUR_MS = 3_600_000


def verdict(source: str, start: int, end: int, rule: str = "burst") -> Verdict:
    return Verdict(
        f"{rule}/{start}/{end}/{source}", rule, REJECT, source, "v", start, end, f"until {end}"
    )


def test_verdicts_that_go_on_from_one_another_are_one_case():
    repeat = verdict("a", 5, 15)
    found = cases(
        [
            verdict("a", 0, 10),
            repeat,
            repeat,
            verdict("b", 0, 99),
            verdict("a", 40, 50),
            verdict("a", 14, 20),
        ]
    )
    said = [(case.last.source, case.from_ms, case.to_ms, case.count) for case in found]
    assert said == [("a", 0, 20, 3), ("a", 40, 50, 1), ("b", 0, 99, 1)]
    assert found[0].last.reason == "until 20"


def test_an_order_names_its_scope_and_is_not_too_long():
    one, other = (order(ALLOW, "s", vendor, 0, HOUR_MS, "why", HOUR_MS) for vendor in (None, "*"))
    assert one.vendor is None
    assert one.id != other.id
    with pytest.raises(ValueError, match="verdict_max_ms"):
        order(REJECT, "s", None, 0, HOUR_MS + 1, "why", HOUR_MS)
    with pytest.raises(ValueError, match="is empty"):
        order(REJECT, "s", None, 5, 5, "why", HOUR_MS)


@pytest.mark.kafka
@pytest.mark.timeout(60)
def test_what_an_operator_says_is_in_the_log(
    broker: Broker, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    create_topics(
        StreamConfig(bootstrap_servers=broker.address, topic_prefix=topic_prefix, partitions=1)
    )
    path = tmp_path / "shop.toml"
    path.write_text(
        f'[stream]\nbootstrap_servers = "{broker.address}"\ntopic_prefix = '
        f'"{topic_prefix}"\npartitions = 1\n'
    )
    config = ["--config", str(path)]
    begin = ["--from", "2026-11-01T10:00", "--hours", "2"]
    assert (
        main(["fraud", "ban", "mallory", "--vendor", "v-1", *begin, "--reason", "seen it", *config])
        == 0
    )
    assert main(["fraud", "allow", "alice", *begin, *config]) == 0
    assert main(["fraud", "ban", "bob", "--hours", "1000", *config]) == 2
    assert main(["fraud", "show", "nobody", *config]) == 1
    capsys.readouterr()
    assert main(["fraud", "show", "mallory", *config]) == 0
    assert "2026-11-01T10:00:00 to 2026-11-01T12:00:00: reject on v-1" in capsys.readouterr().out
    assert main(["fraud", "list", *config]) == 0
    out = capsys.readouterr().out
    assert "alice" in out
    assert "seen it" in out
    assert "2 cases; 1 sources were rejected somewhere" in out
