"""Configures the flywheel of a comment filter: moderators look at what it flags, and at a random fifth of the rest.

docs/moderation.md runs it on public data. Copy it and change what is yours: the field names, and the two words.
"""

from datetime import date
from pathlib import Path

from flywheel_assets.config import (
    ClassificationApplication,
    CommandRecipe,
    ExampleTrigger,
    FeatureType,
    FieldMapping,
    MiningRules,
    ScoreContract,
)

APPLICATION = ClassificationApplication(
    name="moderation",
    description="Toxic comments: what moderators say about a few of them improves the filter.",
    start_date=date(2026, 3, 2),
    contract=ScoreContract(
        features={"text": FeatureType.TEXT},
        positive_label="Toxic",
        negative_label="Not Toxic",
        mapping=FieldMapping(
            key="comment_id",
            score="toxicity",
            prediction_time="posted_at",
            label="verdict",
            label_time="decided_at",
            # With which chance a moderator looks at a comment like this one: 1 where the filter flags it.
            label_propensity="review_chance",
        ),
    ),
    # A comment without a verdict was not looked at; it is no harmless one.
    mining=MiningRules(silence="unknown"),
    # From this score on a comment is hidden until a moderator has looked at it.
    threshold=0.5,
    # A hundred comments a week are few: two weeks hold some 60 known toxic ones, the promotion gate asks for 100.
    evaluation_weeks=4,
    trigger=ExampleTrigger(min_new_positives=50, min_new_hard_examples=20),
    recipe=CommandRecipe(command=("python", "train.py"), folder=str(Path(__file__).parent / "trainer")),
)
