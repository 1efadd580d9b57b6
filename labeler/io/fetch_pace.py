"""How long to wait for what was asked for before it is asked again, and how much to take at once:
both follow what the machine shows that it can do, between bounds. Pure: times come in as seconds of
any steady clock.
"""

from dataclasses import dataclass

#: Of what an answer took so much is kept with each thing that comes unasked.
USUAL_KEPT = 0.98


@dataclass
class RefetchTimer:
    """Asks again after `first_s`, then after twice as long each time up to `most_s`, until
    something comes of it: on a slow machine the answer to the last question may be on its way, and
    a new question would throw it away."""

    first_s: float
    most_s: float
    since_s: float = float("-inf")  # when was asked last, or something came
    wait_s: float = 0.0
    asked: int = 0  # since something came
    usual_s: float = 0.0  # what an answer was waited for of late, and half as long again

    def is_due(self, now_s: float) -> bool:
        """Whether to ask."""
        return now_s - self.since_s >= self.wait_s

    def ask(self, now_s: float) -> None:
        self.wait_s = min(self.most_s, max(self.first_s, self.usual_s) * 2.0**self.asked)
        self.since_s, self.asked = now_s, self.asked + 1

    def come(self, now_s: float) -> None:
        """Something came. More is missed after `first_s`, or after what an answer took lately,
        if that was longer."""
        took_s = 1.5 * (now_s - self.since_s) if self.asked else 0.0
        self.usual_s = min(self.most_s, max(took_s, USUAL_KEPT * self.usual_s))
        self.since_s, self.wait_s, self.asked = now_s, max(self.first_s, self.usual_s), 0

    def forget(self, now_s: float) -> None:
        """Nobody could answer for a while, and now somebody can: how long that took says nothing
        of what is usual."""
        self.since_s, self.wait_s, self.asked, self.usual_s = now_s, self.first_s, 0, 0.0

    def pause(self, now_s: float) -> None:
        """There is nothing to ask for: look again after the same wait."""
        self.since_s = now_s


@dataclass
class StepSize:
    """How many signals to judge at once, so that a step takes no longer than `step_s`, for so long
    nothing else of the process gets its turn: its heartbeats to the group neither."""

    most: int
    step_s: float
    size: int = 0

    def __post_init__(self) -> None:
        self.size = self.size or self.most

    def took(self, count: int, seconds: float) -> None:
        """A step of so many signals took so long."""
        if seconds > self.step_s:
            self.size = max(1, min(self.size, count) // 2)
        elif seconds < self.step_s / 4:
            self.size = min(self.most, self.size * 2)
