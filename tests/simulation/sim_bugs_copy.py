"""Planted bugs of a labeler's local copy of waiting clicks (C4, L5). Two seeds in three keep
one."""

from sim_bug import Patch, bug, replaced

from labeler.click_cache import ClickCopy, SpilledClicks


@bug(
    "copy used that does not cover the resume point",
    "whatever pages are there are taken, with a hole between them or before them (C4)",
)
def copy_with_a_hole() -> list[Patch]:
    return [replaced(ClickCopy._follows, lambda self, page, end, point: True)]


@bug("spilled clicks not looked up", "only clicks in memory are matched (L5)")
def spilled_forgotten() -> list[Patch]:
    return [replaced(SpilledClicks.match, lambda self, *_: [])]
