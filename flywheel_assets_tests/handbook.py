"""The Fraud Detection Handbook's simulated card transactions, with features as a model could have known them.

The published protocol (chapter 3) is written from its description; the book's code is GPL and none of it is here. All
features are those of the moment of the decision: windows end with the transaction itself, and what is learnt from
labels (a terminal's risk) ends seven days before it, because a fraud is known only then.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets_tests.real_data import REAL_DATA

TRANSACTIONS = REAL_DATA / "fraud_handbook" / "transactions_2018-06-15_2018-08-14.parquet"
LABEL_DELAY_DAYS = 7
WINDOWS_DAYS = (1, 7, 30)
FEATURES = [
    "amount",
    "is_weekend",
    "is_night",
    *(f"customer_{what}_{days}d" for days in WINDOWS_DAYS for what in ("count", "mean_amount")),
    *(f"terminal_{what}_{days}d" for days in WINDOWS_DAYS for what in ("count", "risk")),
]


@dataclass(frozen=True)
class EmergingFraud:
    """One of the data's three fraud patterns does not exist before a day: its transactions are taken out."""

    scenario: int
    """1: amounts above 220; 2: a terminal compromised for 28 days; 3: a card's number leaked for 14 days."""
    first_day: date


def decisions(emerging: EmergingFraud | None = None) -> pa.Table:
    """One row per transaction in the order of time: ids, day, FEATURES, `is_fraud`, `scenario` (0 = no fraud).

    Windows reach back to the first day of the data only, so the first month sees shortened ones.
    """
    left_out = "FALSE" if emerging is None else "TX_FRAUD_SCENARIO = $scenario AND TX_DATETIME < $first_day"
    parameters = {} if emerging is None else {"scenario": emerging.scenario, "first_day": emerging.first_day}
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        return connection.sql(_decisions(left_out), params=parameters).to_arrow_table()


def _decisions(left_out: str) -> str:
    customer = ",\n".join(
        f"count(*) OVER customer_{days}d AS customer_count_{days}d, "
        f"avg(amount) OVER customer_{days}d AS customer_mean_amount_{days}d"
        for days in WINDOWS_DAYS
    )
    terminal = ",\n".join(
        f"count(*) OVER terminal_{days}d AS terminal_count_{days}d, "
        f"coalesce(avg(is_fraud::INT) OVER terminal_{days}d, 0) AS terminal_risk_{days}d"
        for days in WINDOWS_DAYS
    )
    return f"""
    WITH transactions AS (
        SELECT TRANSACTION_ID::VARCHAR AS transaction_id, CUSTOMER_ID::VARCHAR AS customer,
               TERMINAL_ID::VARCHAR AS terminal, TX_DATETIME::TIMESTAMP AS decided_at, TX_DATETIME::DATE AS day,
               TX_AMOUNT AS amount,
               TX_FRAUD = 1 AS is_fraud, TX_FRAUD_SCENARIO AS scenario
        FROM read_parquet('{TRANSACTIONS}')
        WHERE NOT ({left_out})
    )
    SELECT *, isodow(decided_at) >= 6 AS is_weekend, hour(decided_at) <= 6 AS is_night, {customer}, {terminal}
    FROM transactions
    WINDOW {", ".join(_window("customer", days, delay_days=0) for days in WINDOWS_DAYS)},
           {", ".join(_window("terminal", days, delay_days=LABEL_DELAY_DAYS) for days in WINDOWS_DAYS)}
    ORDER BY decided_at, transaction_id
    """


def _window(who: str, days: int, delay_days: int) -> str:
    """`days` ending `delay_days` ago, its beginning excluded; times are whole seconds."""
    begins_s, ends_s = (days + delay_days) * 86_400 - 1, delay_days * 86_400
    return (
        f"{who}_{days}d AS (PARTITION BY {who} ORDER BY decided_at "
        f"RANGE BETWEEN INTERVAL {begins_s} SECONDS PRECEDING AND INTERVAL {ends_s} SECONDS PRECEDING)"
    )


def published_split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(train, test) of chapter 3: train 25–31 July 2018, seven days for the labels, test 8–14 August.

    On each test day the cards are left out whose fraud is known by then: of the training week, and of every later day
    that lies at least seven days back.
    """
    days = np.array(rows["day"].to_pylist())
    is_fraud = rows["is_fraud"].to_numpy()
    cards = np.array(rows["customer"].to_pylist())
    first_train, first_test = date(2018, 7, 25), date(2018, 8, 8)
    chosen = np.zeros(len(days), dtype=bool)
    for day in (first_test + timedelta(days=number) for number in range(7)):
        labelled = (days >= first_train) & (days <= day - timedelta(days=LABEL_DELAY_DAYS + 1))
        known = np.unique(cards[labelled & is_fraud])
        chosen |= (days == day) & ~np.isin(cards, known)
    return between(rows, first_train, first_train + timedelta(days=7)), rows.filter(pa.array(chosen))


def between(rows: pa.Table, first: date, end: date) -> pa.Table:
    """Rows of the days from `first` on, before `end`."""
    return rows.filter(pc.and_(pc.greater_equal(rows["day"], first), pc.less(rows["day"], end)))


def logistic_regression(train: pa.Table, test: pa.Table) -> npt.NDArray[np.float64]:
    """Scores of the test rows by the book's simplest model: standardised features, scikit-learn's defaults."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(_matrix(train), train["is_fraud"].to_numpy())
    scores: npt.NDArray[np.float64] = model.predict_proba(_matrix(test))[:, 1]
    return scores


def _matrix(rows: pa.Table) -> npt.NDArray[np.float64]:
    return np.column_stack([rows[name].cast(pa.float64()).to_numpy() for name in FEATURES])
