"""The oracle: reads topics only, and says whether every review has exactly one answer.

An output names its input by topic, partition and offset: a prediction in its value, a dead letter in its headers.
"""

from collections import Counter
from dataclasses import dataclass

from kafka.consumer.fetcher import ConsumerRecord

from running import Stage
from schemas import Prediction

Place = tuple[int, int]
"""Partition and offset of an input record."""


@dataclass(frozen=True)
class Finding:
    """What the topics hold. All but `inputs`, `predictions` and `dead_letters` must be empty."""

    inputs: int
    predictions: int
    dead_letters: int
    missing: list[Place]
    """I1: inputs without an output."""
    duplicated: list[Place]
    """I2: inputs with more than one."""
    phantoms: list[Place]
    """I3: outputs without an input, or under another input's key."""
    disordered: list[Place]
    """I5: outputs that stand after one of a later input of the same partition, in the same output partition."""
    uncommitted: dict[int, tuple[int, int]]
    """I4: partitions whose committed offset is not the end of the log."""

    @property
    def sound(self) -> bool:
        """Every invariant holds."""
        return not (self.missing or self.duplicated or self.phantoms or self.disordered or self.uncommitted)


def examine(stage: Stage) -> Finding:
    """Read the three topics with `read_committed` and compare."""
    inputs = {(record.partition, record.offset): record for record in stage.read(stage.input)}
    predictions = [(place_of_prediction(record), record) for record in stage.read(stage.output)]
    dead = [(place_of_dead_letter(record), record) for record in stage.read(stage.dead)]
    seen = Counter(place for place, _ in (*predictions, *dead))
    committed, ends, oldest = stage.committed(), stage.ends(stage.input), stage.beginnings(stage.input)
    return Finding(
        inputs=len(inputs),
        predictions=len(predictions),
        dead_letters=len(dead),
        missing=sorted(inputs.keys() - seen.keys()),
        duplicated=sorted(place for place, times in seen.items() if times > 1),
        phantoms=sorted(
            place
            for place, record in (*predictions, *dead)
            # What was deleted behind its answer cannot be compared any more.
            if place[1] >= oldest[place[0]] and (place not in inputs or inputs[place].key != record.key)
        ),
        disordered=[*disordered(predictions), *disordered(dead)],
        uncommitted={
            partition: (committed.get(partition, -1), end)
            for partition, end in ends.items()
            if committed.get(partition, -1) != end
        },
    )


def place_of_prediction(record: ConsumerRecord) -> Place:
    """Where its review was read."""
    source = Prediction.model_validate_json(record.value).source
    return source.partition, source.offset


def place_of_dead_letter(record: ConsumerRecord) -> Place:
    """Where its record was read."""
    headers = dict(record.headers)
    return int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])


def disordered(outputs: list[tuple[Place, ConsumerRecord]]) -> list[Place]:
    """Outputs that come after one of a later input; `outputs` is in the order of the topic."""
    latest: dict[tuple[int, int], int] = {}
    found = []
    for (partition, offset), record in outputs:
        stream = (record.partition, partition)
        if offset < latest.get(stream, -1):
            found.append((partition, offset))
        latest[stream] = max(offset, latest.get(stream, -1))
    return found
