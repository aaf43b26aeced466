"""Configures the classification flywheel of a card-fraud model, as an example.

`flywheel init --kind classification` writes a project of your own.
"""

from datetime import date

from flywheel_assets.config import (
    ClassificationApplication,
    ExampleTrigger,
    FeatureType,
    FieldMapping,
    MiningRules,
    ScoreContract,
)
from flywheel_assets.defs.flywheels import classification_flywheel

NUMBER, BOOLEAN = FeatureType.NUMBER, FeatureType.BOOLEAN

APPLICATION = ClassificationApplication(
    name="fraud",
    description="Card fraud: disputes and analysts' decisions, weeks late, become hard examples.",
    # First day for which events may land; the first partition of every daily asset.
    start_date=date(2026, 3, 1),
    contract=ScoreContract(
        # The model reads these features, logged at the decision. An event that lacks one is refused with the name.
        features={
            "amount": NUMBER,
            "is_weekend": BOOLEAN,
            "is_night": BOOLEAN,
            **{f"card_payments_{days}d": NUMBER for days in (1, 7, 30)},
            **{f"card_mean_amount_{days}d": NUMBER for days in (1, 7, 30)},
            **{f"terminal_payments_{days}d": NUMBER for days in (1, 7, 30)},
            **{f"terminal_risk_{days}d": NUMBER for days in (1, 7, 30)},
        },
        # These are the places in the service's own JSON, for POST /v1/fraud/predictions and /v1/fraud/labels.
        mapping=FieldMapping(
            key="transaction_id",
            score="prediction.fraud_probability",
            prediction_time="timestamp",
            label="ground_truth.is_fraud",
            labeling_source="ground_truth.labeling_source",
            label_time="ground_truth.timestamp",
            entity="card_id",
        ),
    ),
    # A payment without a dispute after a week is a negative here. Real disputes take 60 to 120 days.
    mining=MiningRules(maturity_days=7),
    # Above this score a payment is blocked; a challenger is compared at as many alerts.
    threshold=0.5,
    trigger=ExampleTrigger(min_new_positives=100, min_new_hard_examples=100),
)

defs = classification_flywheel(APPLICATION)
