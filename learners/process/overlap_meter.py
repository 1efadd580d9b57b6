"""How long pulls and pushes ran beside a computation: what a staleness bound above 0 is for.

With s >= 1 the rows of the next batch are pulled, and the gradient of the one before is pushed,
while a batch is computed, where the clock admits it (K2). With s = 0 and one learner nothing runs
beside anything.
"""

CALLS = ("pull", "push")
COMPUTE = "compute"


class Overlap:
    """Of one learner; tell it of every begin and end. `seconds[call]`: since the start of the
    process."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(CALLS, 0.0)
        self._under_way = dict.fromkeys((*CALLS, COMPUTE), 0)
        self._at_s = 0.0

    def change(self, step: str, by: int, now_s: float) -> None:
        """So many more of these are under way (a pull, a push, a computation), or fewer. `now_s`
        never falls."""
        if self._under_way[COMPUTE]:
            for call in CALLS:
                if self._under_way[call]:
                    self.seconds[call] += now_s - self._at_s
        self._under_way[step] += by
        self._at_s = now_s
