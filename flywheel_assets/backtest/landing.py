"""Lands days of history in the throw-away home, as capture would have landed them there.

Segments of history are copied as they are. From the first promotion on the scores in them are those of the model that
serves in the replay; features, amounts, segments, entities and actions stay.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from shutil import copyfile

import msgspec

from flywheel_assets.capture.events.scores import ScoreLine
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.landing.protocol import LandingPlace

_score_decoder = msgspec.json.Decoder(ScoreLine)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class ServedScores:
    """Scores that a model of the replay gives."""

    model_version: str
    by_prediction: Mapping[str, float]


@dataclass(frozen=True)
class Lander:
    """Copies landed days from one landing zone to another."""

    application: str
    source: LandingPlace
    target: DiskLanding
    scratch: Path

    def land(self, days: Iterable[date], served: ServedScores | None = None) -> None:
        """Land days with all their events; predictions with new scores where a model of the replay served.

        Raises:
            LandingRetiredError: segments of a day were removed by retention.
        """
        for day in days:
            for kind in EventKind:
                source = self.source.open_zone(self.application, kind)
                target = self.target.open_zone(self.application, kind)
                target.open_folder.mkdir(parents=True, exist_ok=True)
                with source.fetch(source.look(day), self.scratch) as paths:
                    for path in paths:
                        building = target.open_folder / path.name
                        if served is None or kind is not EventKind.PREDICTION:
                            copyfile(path, building)
                        else:
                            _write_scored(path, building, served)
                        target.publish(building, day)


def _write_scored(path: Path, target: Path, served: ServedScores) -> None:
    with open(path, "rb") as lines, open(target, "wb") as file:
        for line in lines:
            try:
                event = _score_decoder.decode(line)
            except msgspec.DecodeError:
                file.write(line)  # quarantine shows it, as in the application's own home
                continue
            score = served.by_prediction.get(event.prediction_id)
            if score is not None:
                event = msgspec.structs.replace(event, score=score, model_version=served.model_version)
            file.write(_encode(event) + b"\n")
