"""An invariant that does not hold."""


class Violation(AssertionError):
    """Names the invariant (I1-I8) or the rule, and what was seen."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
