"""Configures the preference flywheel of an internal assistant, as an example.

`flywheel init` writes a project of your own.
"""

from datetime import date

from flywheel_assets.config import GateRules, PreferenceApplication, ResolutionRules, Trigger, build_default_policy
from flywheel_assets.defs.flywheels import preference_flywheel

APPLICATION = PreferenceApplication(
    name="assistant",
    description="Internal coding assistant: engineers' edits of its answers become preference pairs.",
    # First day for which events may land; the first partition of every daily asset.
    start_date=date(2026, 9, 1),
    # A folder under <home>/models, a path, or a hub id. The demo trains this one on the spot.
    base_model="assistant_base",
    # A number that an engineer changes in code is the correction itself, so it is not held back.
    gate=GateRules(policy=build_default_policy(factual_integrity=False)),
    # One training per 5,000 new pairs is right for a company-wide assistant; lower it for a small team.
    trigger=Trigger(min_new_pairs=5_000, min_new_partitions=1),
    # At most 100 pairs of one person enter a version, and every tenth person is held out for evaluation.
    resolution=ResolutionRules(per_user_cap=100, holdout_share=0.10),
)

defs = preference_flywheel(APPLICATION)
