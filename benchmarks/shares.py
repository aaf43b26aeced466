"""Writes shares of replications with their exact binomial intervals, for the tables and pictures of error rates."""

from dataclasses import dataclass

from scipy import stats  # noqa: TID253  (benchmarks are started on their own)


@dataclass(frozen=True)
class Counted:
    """The share of replications in which something happened, with Clopper and Pearson's interval of 95 %."""

    count: int
    replications: int

    @property
    def share(self) -> float:
        """The share."""
        return self.count / self.replications

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return float(stats.beta.ppf(0.025, self.count, self.replications - self.count + 1)) if self.count else 0.0

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        missing = self.replications - self.count
        return float(stats.beta.ppf(0.975, self.count + 1, missing)) if missing else 1.0

    def describe(self) -> str:
        """Write the share and its interval."""
        return f"{self.share:.3f} [{self.low:.3f}, {self.high:.3f}]"
