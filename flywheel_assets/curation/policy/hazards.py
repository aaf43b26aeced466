"""The words by which findings are sorted: MLCommons AILuminate's hazards by name, and five of our own.

AILuminate (v1.0) names what a *model's answer* can do to people. An edit can do more: teach the model to obey texts, to
repeat credentials, to be partial or wrong. Those have names of their own, because forcing them under a hazard would
say something untrue about them.
"""

from enum import StrEnum


class Hazard(StrEnum):
    """What kind of harm a finding points at."""

    # AILuminate
    VIOLENT_CRIMES = "violent_crimes"
    NON_VIOLENT_CRIMES = "non_violent_crimes"
    SEX_RELATED_CRIMES = "sex_related_crimes"
    CHILD_SEXUAL_EXPLOITATION = "child_sexual_exploitation"
    SUICIDE_AND_SELF_HARM = "suicide_and_self_harm"
    INDISCRIMINATE_WEAPONS = "indiscriminate_weapons"
    INTELLECTUAL_PROPERTY = "intellectual_property"
    DEFAMATION = "defamation"
    HATE = "hate"
    PRIVACY = "privacy"
    SPECIALIZED_ADVICE = "specialized_advice"
    SEXUAL_CONTENT = "sexual_content"
    # ours
    SECRET = "secret"  # noqa: S105
    PROMPT_INJECTION = "prompt_injection"
    HARASSMENT = "harassment"
    NEUTRALITY = "neutrality"
    STRUCTURAL_ABUSE = "structural_abuse"
    FACTUAL_INTEGRITY = "factual_integrity"
