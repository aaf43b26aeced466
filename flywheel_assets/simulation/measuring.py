"""How good a deployed model is on requests that never occur in traffic, by what is new about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from flywheel_assets.simulation.deployment import Assistant
from flywheel_assets.simulation.world import Measurement, Request


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares (0 to 1) of a measurement's requests; *exact* is the right answer character by character."""

    model_version: str
    requests: int
    lacking_right_call: float
    """Of the internal prompts in known phrasings."""
    unseen_prompts_exact: float
    unseen_phrasings_exact: float
    neutral_exact: float


def measure(assistant: Assistant, measurement: Measurement) -> Accuracy:
    """Let the model answer every request of the measurement."""
    asked = [*measurement.unseen_prompts, *measurement.unseen_phrasings, *measurement.neutral]
    outputs = iter(assistant.answer([request.prompt for request in asked]))
    prompts, phrasings, neutral = (
        [(request, next(outputs)) for request in requests]
        for requests in (measurement.unseen_prompts, measurement.unseen_phrasings, measurement.neutral)
    )
    return Accuracy(
        model_version=assistant.model_version,
        requests=len(asked),
        lacking_right_call=sum(request.lacks_right_call(output) for request, output in prompts) / len(prompts),
        unseen_prompts_exact=_exact(prompts),
        unseen_phrasings_exact=_exact(phrasings),
        neutral_exact=_exact(neutral),
    )


def _exact(answered: Sequence[tuple[Request, str]]) -> float:
    return sum(request.is_exact(output) for request, output in answered) / len(answered)
