"""A sensor in a thread of its own: drivers take their time, and may hang for ever."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiotune.devices.device import Reading

__all__ = ["Answer", "Asked", "Sensor", "SensorThread"]

logger = logging.getLogger("aiotune.devices")


class Sensor(Protocol):
    """Reads devices. It blocks, and is used from one thread."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, uuids: Iterable[str]) -> Mapping[str, Reading]:
        """Return a reading of each device; what cannot be read is a reading with a fault."""
        ...

    def faults(self, timeout: float) -> Mapping[str, str]:
        """Return what befell devices since the last call, by UUID, after `timeout` seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sensor said of the devices that it was asked for. faults: of any, since it was asked last."""

    readings: Mapping[str, Reading]
    faults: Mapping[str, str]


class Asked(Protocol):
    """Asks a sensor, and does not wait."""

    def ask(self, uuids: Iterable[str], tell: Callable[[Answer], object]) -> None:
        """Have `tell` called, from whichever thread, once these devices are read."""
        ...

    def close(self) -> None:
        """End, once what is under way is answered."""
        ...


_Question = tuple[tuple[str, ...], Callable[[Answer], object]]


class SensorThread:
    """Asks a sensor, question by question.

    A daemon, so that a driver that hangs does not keep the process from ending. `close` does not wait for an
    answer that is under way; the sensor is closed after it.
    """

    def __init__(self, sensor: Sensor) -> None:
        self._sensor = sensor
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._answer_all, name="aiotune-sensor", daemon=True)
        thread.start()

    def ask(self, uuids: Iterable[str], tell: Callable[[Answer], object]) -> None:
        """Have `tell` called, from the sensor's thread, once these devices are read. Returns at once."""
        self._questions.put((tuple(uuids), tell))

    def close(self) -> None:
        """Answer what was asked, then end. Returns at once."""
        self._questions.put(None)

    def _answer_all(self) -> None:
        try:
            while (question := self._questions.get()) is not None:
                uuids, tell = question
                tell(self._look(uuids))
        finally:
            self._sensor.close()

    def _look(self, uuids: tuple[str, ...]) -> Answer:
        try:
            readings = self._sensor.read(uuids)
            faults = self._sensor.faults(0)
        except Exception as error:  # no fault of a driver's may end the search, nor stop the watch
            logger.exception("GPUs cannot be read: %s", ", ".join(uuids))
            fault = f"it cannot be read: {type(error).__name__}: {error}"
            return Answer(dict.fromkeys(uuids, Reading(fault=fault)), {})
        unknown = Reading(fault="the driver does not tell of it")
        return Answer({uuid: readings.get(uuid, unknown) for uuid in uuids}, faults)
