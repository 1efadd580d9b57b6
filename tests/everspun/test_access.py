"""Least rights by role: the table, the page and the command agree."""

import re
from pathlib import Path

import pytest

from everspun.__main__ import main
from everspun.broker_access import OPERATOR, SITE, access, grants
from everspun.hosts import ROLES
from stream import StreamConfig

ROOT = Path(__file__).resolve().parents[2]
PRINCIPALS = tuple(access("shop"))


def test_every_role_that_takes_part_in_the_log_has_its_rights():
    assert set(PRINCIPALS) == {*ROLES, SITE, OPERATOR} - {"shard"}


def test_the_page_says_what_the_table_says():
    page = (ROOT / "docs" / "security.md").read_text()
    rows = {
        cells[1].strip(): (cells[2], cells[3])
        for line in page.splitlines()
        if line.startswith("| ") and len(cells := line.split("|")) == 6
    }
    for role, may in access("NAME").items():
        writes, reads = (set(re.findall(r"`([\w*-]+)`", cell)) for cell in rows[role])
        own = {f"{may.own}*"} if may.own else set()
        assert writes == set(may.writes) | own, role
        assert reads == set(may.reads) | own, role


def test_the_fraud_filter_may_ask_where_the_inputs_end_and_read_neither():
    """As it asks at each start: a watermark beyond them counts for nothing (F3)."""
    found = {
        (grant.operation, grant.name)
        for grant in grants(StreamConfig(topic_prefix="eu-"), "m")
        if grant.principal == "User:fraud"
    }
    assert {("Describe", "eu-impressions"), ("Describe", "eu-clicks")} <= found
    assert ("Read", "eu-impressions") not in found
    assert "asks where `impressions` and `clicks` end" in (ROOT / "docs/security.md").read_text()


def test_the_command_prints_them_for_kafkas_own_tool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "x.toml"
    path.write_text('[stream]\ntopic_prefix = "eu-"\n[model]\nname = "shop"\n')
    assert main(["topics", "acls", "-c", str(path), "--principals", "User:everspun-{role}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal "
        "'User:everspun-learner' --operation Read --group 'eu-learners-shop'"
    ) in lines
    assert len(lines) == len(set(lines)) > 60
