"""Create the topics, or check that they are as they must be (T6)."""

import argparse

from everspun.commands import options as shared
from stream.client import check_topics, create_topics
from stream.log import Unavailable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("create", "check"))
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    stream = shared.load(options).stream
    try:
        if options.action == "create":
            for name in create_topics(stream):
                print(f"created {name}")
        problems = check_topics(stream)
    except Unavailable as error:
        print(f"no answer from {stream.bootstrap_servers}: {error}")
        return 2
    for problem in problems:
        print(problem)
    print("topics are as they must be" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0
