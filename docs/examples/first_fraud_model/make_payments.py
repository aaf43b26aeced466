"""Write twelve weeks of card payments with the scores of an old rule, and their labels, which come late.

    python make_payments.py payments.jsonl labels.jsonl

The old rule looks at amounts only. One payment in fifty is fraud, most of it at night and far from home, which the
rule cannot see. Frauds are reported after one to twenty days. A few honest payments are
confirmed; of the rest there is silence.
"""

import json
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

WEEKS, PAYMENTS_A_DAY = 12, 400
COUNTRIES = ("DE", "FR", "NL", "PL", "BR")


def make_payment(rng: random.Random, number: int, time: datetime) -> tuple[dict[str, object], bool]:
    """Make a payment with the old rule's score, and say whether it is a fraud."""
    is_fraud = rng.random() < 0.02
    amount = round(rng.lognormvariate(3.6 if is_fraud else 3.3, 0.9), 2)
    country = rng.choice(("BR", "PL", "DE")) if is_fraud else rng.choices(COUNTRIES, (60, 15, 15, 8, 2))[0]
    hour = rng.choice((0, 1, 2, 3, 4, 14)) if is_fraud else rng.randrange(6, 24)
    time = time.replace(hour=hour, minute=rng.randrange(60))
    score = 1 / (1 + math.exp(4.5 - amount / 150))
    features = {"amount": amount, "is_weekend": time.weekday() >= 5, "is_night": hour < 6, "country": country}
    payment = {
        "transaction_id": f"txn-{number}",
        "customer_id": f"card-{rng.randrange(4_000)}",
        "timestamp": time.isoformat(),
        "score": round(score, 4),
        "features": features,
    }
    return payment, is_fraud


def make_world(until: datetime) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Make the payments of twelve weeks, and the labels that are known before `until`."""
    rng = random.Random(0)
    payments: list[dict[str, object]] = []
    labels: list[dict[str, object]] = []
    for number in range(WEEKS * 7 * PAYMENTS_A_DAY):
        day = until - timedelta(days=WEEKS * 7 - number // PAYMENTS_A_DAY)
        payment, is_fraud = make_payment(rng, number, day)
        payments.append(payment)
        known_at = datetime.fromisoformat(str(payment["timestamp"])) + timedelta(days=rng.uniform(1, 20))
        if (is_fraud or rng.random() < 0.01) and known_at < until:
            labels.append(
                {"transaction_id": payment["transaction_id"], "label": is_fraud, "known_at": known_at.isoformat()}
            )
    return payments, labels


if __name__ == "__main__":
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for path, rows in zip(sys.argv[1:], make_world(midnight), strict=True):
        Path(path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        print(f"{len(rows):,} rows in {path}")
