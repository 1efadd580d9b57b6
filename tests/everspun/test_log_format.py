"""Logs as text, or as an object a line that says role, model and partition."""

import json
import logging
import subprocess
import sys

from everspun.log_format import MESSAGE_MAX, JsonFormatter
from stream import Partition

FORMATTER = JsonFormatter("labeler-3", "shop")


def record(message: str, *arguments: object, error: bool = False) -> dict[str, object]:
    exc_info = None
    if error:
        try:
            raise ValueError("zwölf\nLinien")
        except ValueError:
            exc_info = sys.exc_info()
    made = logging.LogRecord("labeler.x", logging.INFO, "x.py", 1, message, arguments, exc_info)
    made.created, made.msecs = 1_700_000_000.007, 7.0
    line = FORMATTER.format(made)
    assert "\n" not in line
    return dict(json.loads(line))


def test_a_line_says_who_of_which_model():
    assert record("owns %s", [1]) == {
        "time": "2023-11-14T22:13:20.007Z",
        "level": "INFO",
        "process": "labeler-3",
        "role": "labeler",
        "index": 3,
        "model": "shop",
        "logger": "labeler.x",
        "message": "owns [1]",
    }


def test_a_line_about_a_partition_says_which():
    said = record("%s stands since %d", Partition("clicks", 7), 3)
    assert (said["topic"], said["partition"]) == ("clicks", 7)


def test_an_error_and_what_is_long_stay_one_bounded_line():
    assert "zwölf\nLinien" in str(record("failed", error=True)["error"])
    assert len(str(record("x" * 2 * MESSAGE_MAX)["message"])) == MESSAGE_MAX


def test_a_process_writes_what_the_configuration_says():
    script = (
        "import logging, sys; from everspun.log_format import set_up_logs; "
        "set_up_logs(sys.argv[1], 'INFO', 'shard-0', 'shop'); logging.warning('here')"
    )
    said = {}
    for format in ("text", "json"):
        done = subprocess.run(
            [sys.executable, "-c", script, format], capture_output=True, text=True, check=True
        )
        said[format] = done.stderr.strip()
    assert said["text"].endswith("shard-0 WARNING here")
    assert json.loads(said["json"])["message"] == "here"
