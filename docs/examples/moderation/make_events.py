"""Makes nine weeks of a comment filter from the toxicity table: `python make_events.py toxicity_en.csv [SEED]`.

The filter that serves is a word list. It writes

| file | content |
|---|---|
| predictions.jsonl | one comment a line: text, the word list's score, and the chance that a moderator looks at it |
| labels.jsonl | the verdicts of those that a moderator looked at |
| truth.csv | the table's verdict on every comment, which the flywheel never sees |
"""

import csv
import json
import random
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)
COMMENTS_PER_WEEK = 100
LOOKED_AT_BEFORE = 100
"""Comments whose verdicts are known before the first day: they give the word list its scores."""
REVIEW_SHARE = 0.2
"""Of the comments that are not flagged; flagged ones are all looked at."""
FLAGGED_FROM = 0.5
MOST_HITS = 2
WORDS = re.compile(
    r"\b(ass|bitch|clown|coward|disgusting|dumb|fuck|garbage|hate|idiot|kill|liar|loser|moron|pathetic|scum|shit|"
    r"stupid|trash|ugly)",
    re.IGNORECASE,
)


def main(table: Path, seed: int) -> None:
    """Write the three files into the current folder."""
    with table.open(encoding="utf-8", newline="") as file:
        comments = [(row["text"], row["is_toxic"]) for row in csv.DictReader(file)]
    draw = random.Random(seed)
    draw.shuffle(comments)
    scores = score_hits(comments[:LOOKED_AT_BEFORE])
    predictions, labels, truth = [], [], []
    for number, (text, verdict) in enumerate(comments[LOOKED_AT_BEFORE:]):
        score = scores[count_hits(text)]
        chance = 1.0 if score >= FLAGGED_FROM else REVIEW_SHARE
        posted_at = FIRST_DAY + timedelta(weeks=(number + 0.5) / COMMENTS_PER_WEEK)
        comment_id = f"comment-{number:04d}"
        predictions.append(
            {
                "comment_id": comment_id,
                "posted_at": posted_at.isoformat(),
                "toxicity": score,
                "review_chance": chance,
                "model_version": "word-list",
                "features": {"text": text},
            }
        )
        truth.append({"comment_id": comment_id, "week": number // COMMENTS_PER_WEEK + 1, "verdict": verdict})
        if draw.random() < chance:
            decided_at = posted_at + timedelta(hours=draw.uniform(1, 24))
            labels.append({"comment_id": comment_id, "verdict": verdict, "decided_at": decided_at.isoformat()})
    for name, rows in (("predictions", predictions), ("labels", labels)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with open("truth.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(truth[0]))
        writer.writeheader()
        writer.writerows(truth)
    toxic = sum(row["verdict"] == "Toxic" for row in labels)
    print(f"{len(predictions)} comments, {len(labels)} looked at, {toxic} of these toxic")


def count_hits(text: str) -> int:
    """Count words of the list, MOST_HITS at most."""
    return min(MOST_HITS, len(WORDS.findall(text)))


def score_hits(known: list[tuple[str, str]]) -> list[float]:
    """Compute the share of toxic comments by the number of hits, drawn towards a half where few are known."""
    scores = []
    for hits in range(MOST_HITS + 1):
        verdicts = [verdict for text, verdict in known if count_hits(text) == hits]
        scores.append((sum(verdict == "Toxic" for verdict in verdicts) + 1) / (len(verdicts) + 2))
    return scores


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
