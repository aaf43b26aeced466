"""Names the limits that a day is beyond: the findings of both breakers, of edits and of labels."""

from dataclasses import dataclass

MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Trip:
    """One limit that a day is beyond."""

    rule: str
    """Of edits: flagged_share | top_user_share | burst | concentrated_claim; of labels: positive_burst | positive_share
    | reversals."""
    value: float
    limit: float
    examples: tuple[str, ...]
    """Feedback event ids of the first few rows behind it: never texts."""

    def describe(self) -> str:
        """Describe the trip for people, without user text."""
        return f"{self.rule} {self.value:.3g} {'>' if self.value > self.limit else '<'} {self.limit:.3g}"
