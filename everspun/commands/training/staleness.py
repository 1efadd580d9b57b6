"""Set how far learners may run ahead of each other, while they run: the bound (0 = in step, -1 =
unbounded), how many batches may be under way at once, and what shards do about stale gradients.
What is given here holds over restarts, the bound until another one is configured. Given nothing, it
shows what is in force, and by whose word: yours, or a governor's, which only tightens it.
docs/staleness.md says what the numbers mean."""

import argparse

from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.status import words
from paramserver import WAYS, Bounds, PortRefused, PortUnreachable
from paramserver.wire import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bound",
        type=shared.whole,
        nargs="?",
        help="0, 1, 2, ... batches ahead of the slowest, or -1",
    )
    parser.add_argument(
        "--concurrency",
        type=shared.whole,
        metavar="N",
        help="batches under way at once; 0 = no limit",
    )
    parser.add_argument(
        "--compensation", choices=[*WAYS, "configured"], help="what shards do about stale gradients"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    model, way = config.model.name, options.compensation
    if way == "adaptive_revision" and config.model.table_optimizer != way:
        needs = f"{way} needs model.table_optimizer = {way!r}"
        return refuse("staleness", f"nothing was changed: {needs}")
    if wrong := _fault(options.bound, options.concurrency):
        return refuse("staleness", f"nothing was changed: {wrong}")
    shards, clock = connect(config.paramserver, config.run.dir, config.run.shards)
    asks = options.bound is None and options.concurrency is None and way is None
    try:
        if asks:
            print("\n".join(_said(clock.bounds(model), model)))
        if options.bound is not None:
            clock.set_staleness(model, options.bound)
            configured = config.paramserver.staleness
            print(
                f"learners of {model} may run {options.bound} batches ahead (configured: "
                f"{configured})"
            )
        if options.concurrency is not None:
            clock.set_concurrency(model, options.concurrency)
            print(f"batches of {model} under way at once: {options.concurrency or 'no limit'}")
        if way is not None:
            clock.set_compensation(model, "" if way == "configured" else way)
            print(f"stale gradients of {model}: {way}")
    except (PortUnreachable, PortRefused) as error:
        done = "no answer" if asks else "not changed, or nobody knows"
        return refuse("staleness", f"{done}: {error}")
    finally:
        clock.close()
        for port in shards.values():
            port.close()
    return 0


def _fault(bound: int | None, concurrency: int | None) -> str:
    """What is wrong with the numbers; "" if nothing is."""
    if bound is not None and bound < -1:
        return f"bound {bound}: expected 0, 1, 2, ... or -1 for unbounded"
    if concurrency is not None and concurrency < 0:
        return f"--concurrency {concurrency}: expected 0 (no limit), 1, 2, ..."
    return ""


def _said(bounds: Bounds, model: str) -> list[str]:
    """What bounds a model, by whose word, for a person."""
    lines = [f"{model}: {words(bounds.in_force)} in force, {bounds.learners} learners"]
    lines.append(
        f"  operator, or as configured: "
        f"{words(bounds.ordered)}{', paused' if bounds.paused else ''}"
    )
    if bounds.governed is not None:
        until = f"runs out in {bounds.left_ms / 1_000:.0f} s unless it is renewed"
        lines.append(f"  {bounds.governor}: {words(bounds.governed)}; {until}")
    else:
        lines.append("  no governor's lease")
    return lines
