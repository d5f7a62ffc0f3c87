"""The cards that are watched, by their conditions: plain, without a clock or a driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from aiotune.devices.base import HELD, SETTLING
from aiotune.devices.condition import FEW_FAILURES, Cause, Condition, Rules, Verdict
from aiotune.devices.device import Reading

__all__ = ["Conditions", "News"]


class News:
    """What the user should know of cards, each change once."""

    def __init__(self) -> None:
        self._told: dict[str, Cause] = {}

    def of(self, verdicts: Mapping[str, Verdict | None]) -> list[tuple[str, Verdict | None]]:
        """Return the cards that are withheld for another cause than was told last, and those that are back."""
        news: list[tuple[str, Verdict | None]] = []
        for uuid, verdict in verdicts.items():
            if verdict is None or verdict.cause is Cause.LOADED:  # it is in use: it must be well
                if self._told.pop(uuid, None) is not None:
                    news.append((uuid, None))
            elif verdict.cause.is_news and self._told.get(uuid) is not verdict.cause:
                self._told[uuid] = verdict.cause
                news.append((uuid, verdict))
        return news

    def forget(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            self._told.pop(uuid, None)


class Conditions:
    """The cards of one ledger that are watched, by however many watches. To be used under the ledger's lock."""

    def __init__(self) -> None:
        self.news = News()  # for the log, which all watches have in common
        self._cards: dict[str, Condition] = {}
        self._applied: dict[str, str | None] = {}  # what the ledger is known to have
        self._watches: dict[object, tuple[frozenset[str], Rules]] = {}

    def open(self, uuids: Iterable[str], rules: Rules, at: float) -> object:
        """Begin to watch cards; return what `close` takes."""
        watch = object()
        self._watches[watch] = (frozenset(uuids), rules)
        for uuid in uuids:
            self._cards.setdefault(uuid, Condition(waits_since=at))
        return watch

    def close(self, watch: object) -> None:
        """End a watch. What nobody watches is forgotten."""
        del self._watches[watch]
        watched = {uuid for uuids, _ in self._watches.values() for uuid in uuids}
        left = self._cards.keys() - watched
        self.news.forget(left)
        for uuid in left:
            del self._cards[uuid]
            self._applied.pop(uuid, None)

    def __getitem__(self, uuid: str) -> Condition:
        return self._cards[uuid]

    def rules(self, uuid: str) -> Rules:
        """Return what holds for a card: the stricter, where several searches have it in common."""
        rules = [rules for uuids, rules in self._watches.values() if uuid in uuids]
        return Rules(
            skips_busy=any(each.skips_busy for each in rules),
            judges_memory=all(each.judges_memory for each in rules),
        )

    def notice(self, uuid: str, withheld: str | None, at: float) -> None:
        """Take over what the ledger itself has found: that the last run has left, or another's lock."""
        if withheld == self._applied.get(uuid):
            return
        self._applied[uuid] = withheld
        if withheld == SETTLING:
            self.vacated(uuid, at)
        elif withheld is not None and withheld.startswith(HELD):
            self._cards[uuid] = self._cards[uuid].taken(withheld)

    def applied(self, uuid: str, reason: str | None) -> None:
        """The ledger withholds a card for this reason now, or not, as its condition wants it."""
        self._applied[uuid] = reason

    def vacated(self, uuid: str, at: float) -> None:
        """The last run on a card has ended, here or in another process; several watches may tell so."""
        card = self._cards.get(uuid)
        if card is None:
            return
        if card.is_vacated and not card.is_read and card.held is None:  # it is known
            return
        self._cards[uuid] = card.vacated(at)

    def taken(self, uuid: str, holder: str) -> None:
        """Another process has the lock of a card. holder: in words."""
        self._cards[uuid] = self._cards[uuid].taken(f"{HELD}: {holder}")

    def left(self, uuid: str) -> None:
        """No other process has the lock of a card any more; nothing else need be looked at."""
        self._cards[uuid] = replace(self._cards[uuid], held=None)

    def befell(self, uuid: str, at: float, fault: str) -> None:
        """Something happened to a card that speaks against it."""
        if uuid in self._cards:
            self._cards[uuid] = self._cards[uuid].broken(at, fault)

    def read(
        self,
        uuid: str,
        at: float,
        reading: Reading,
        *,
        leases: int,
        read_in: int,
        is_shared: bool = False,
    ) -> None:
        """A card was read, as `Condition.read` has it."""
        self._cards[uuid] = self._cards[uuid].read(
            at, reading, self.rules(uuid), leases=leases, read_in=read_in, is_shared=is_shared
        )

    def reported(self, uuids: Iterable[str], at: float, *, failed: bool) -> None:
        """A run on these cards has ended."""
        for uuid in uuids:
            if uuid in self._cards:
                card = self._cards[uuid]
                self._cards[uuid] = card.failed(at) if failed else card.succeeded(at)
        for uuid in list(self._suspects()):
            self._cards[uuid] = self._cards[uuid].benched(at)

    def _suspects(self) -> Iterator[str]:
        """Yield the cards on which all fails, while elsewhere runs succeed."""
        for uuid, card in self._cards.items():
            if card.failures < FEW_FAILURES:
                continue
            if any(
                other.succeeded_at is not None and other.succeeded_at >= card.failing_since
                for name, other in self._cards.items()
                if name != uuid
            ):
                yield uuid
