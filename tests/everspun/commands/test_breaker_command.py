"""An operator's override on what is withheld: scopes, intervals, and what is refused."""

from argparse import Namespace

import pytest

from everspun.commands.data.breaker import listed, named, order, parse_scope
from stream import StreamConfig
from stream.internal_topics import OPERATOR, RELEASE, WITHHOLD, Verdict

STREAM = StreamConfig(categorical_features=("language",))
NOW = 1_700_000_000_000


def asked(action, scope, from_ms=None, to_ms=None):
    return Namespace(action=action, scope=scope, from_ms=from_ms, to_ms=to_ms, reason="because")


def withheld(from_ms, to_ms, value="de"):
    return Verdict(
        f"{from_ms}",
        "breaker/click_share",
        WITHHOLD,
        None,
        None,
        from_ms,
        to_ms,
        "r",
        {},
        "language",
        value,
    )


@pytest.mark.parametrize("scope", ["everything", "vendor=v", "source=s", "language=de"])
def test_every_scope_is_named_as_it_was_asked_for(scope):
    verdict = order(asked(WITHHOLD, scope), [], STREAM, NOW)
    assert named(verdict) == scope
    assert (verdict.rule, verdict.from_ms, verdict.to_ms) == (
        OPERATOR,
        NOW,
        NOW + STREAM.verdict_max_ms,
    )


def test_a_release_covers_what_is_withheld_without_a_gap():
    said = [
        withheld(100, 200),
        withheld(500, 600),
        withheld(600, 700),
        withheld(650, 700, "fi"),
        withheld(700, 800),
    ]
    assert order(asked(RELEASE, "language=de"), said, STREAM, NOW).from_ms == 500
    assert order(asked(RELEASE, "language=de", 300), said, STREAM, NOW).from_ms == 300


def test_a_decision_that_ends_behind_every_calendar_is_listed(capsys):
    assert listed([withheld(100, 10**17)], 20) == 1
    assert "3170843-11-07 09:46:40" in capsys.readouterr().out


@pytest.mark.parametrize("scope", ["nothing", "country=de", "language"])
def test_an_unknown_scope_is_refused_naming_the_known(scope):
    with pytest.raises(ValueError, match="language"):
        parse_scope(scope, STREAM)


def test_an_empty_interval_is_refused():
    with pytest.raises(ValueError, match="empty"):
        order(asked(WITHHOLD, "everything", 5, 5), [], STREAM, NOW)
