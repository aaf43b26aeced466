"""Write a week of events: what the tutorial's base model answered, and what 150 people did about it.

    python make_events.py .flywheel/models/base_model events.jsonl

Each line is a CloudEvent as a product would send it. The people correct answers or accept them, or do nothing.
"""

import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flywheel_assets.demo.assistant.base_model import Deployment
from flywheel_assets.demo.assistant.people import People
from flywheel_assets.demo.assistant.world import Workload, World

DAYS, REQUESTS_A_DAY = 7, 240


def make_events(base_model: Path, until: datetime) -> list[dict[str, object]]:
    """Make the events of the seven days before `until`."""
    rng, world, people = random.Random(0), World(), People(engineers=145, vandals=5)
    workload = Workload({idiom.name: 1.0 for idiom in world.internal})
    requests = [world.ask(rng, workload) for _ in range(DAYS * REQUESTS_A_DAY)]
    answers = Deployment(base_model, None, "base").answer([request.prompt for request in requests])
    members = people.list_members()
    events: list[dict[str, object]] = []
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        person = rng.choice(members)
        time = until - timedelta(days=DAYS) + timedelta(days=DAYS) * number / len(requests)
        common = {"specversion": "1.0", "source": "tutorial", "subject": person.user_id, "time": time.isoformat()}
        said = {"prompt": request.prompt, "output": answer, "model_version": "base"}
        events.append({**common, "id": f"answer-{number}", "type": "flywheel.prediction", "data": said})
        reaction = people.react(rng, person, request, answer)
        if reaction is not None:
            data: dict[str, object] = {"signal": reaction.signal, "prediction_id": f"answer-{number}"}
            data |= {"final_text": reaction.final_text} if reaction.final_text is not None else {}
            data |= {"value": reaction.value} if reaction.value is not None else {}
            events.append({**common, "id": f"reaction-{number}", "type": "flywheel.feedback", "data": data})
    return events


if __name__ == "__main__":
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    made = make_events(Path(sys.argv[1]), midnight)
    Path(sys.argv[2]).write_text("".join(f"{json.dumps(event)}\n" for event in made))
    print(f"{len(made):,} events in {sys.argv[2]}")
