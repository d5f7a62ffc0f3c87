"""What keeps cards from being leased beside the leases of this process: reasons, and other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiotune.devices.base import DUE, HELD, LOADED, SETTLING, Locks

__all__ = ["Cards"]


@dataclass(frozen=True, slots=True, eq=False)
class _Tender:
    """Somebody who watches these cards, and is told when one has no lease any more."""

    uuids: frozenset[str]
    vacated: Callable[[str], object]


class Cards:
    """The cards that are withheld, who watches over them, and the locks that this process has.

    To be used under the ledger's lock.
    """

    def __init__(self) -> None:
        self.locks: Locks | None = None
        self.withheld: dict[str, str] = {}  # UUID -> why
        self.others: dict[str, int] = {}  # UUID -> bytes in use beside what its leases may take
        self._guards: dict[str, int] = {}  # UUID -> descriptor of its lock
        self._settling: set[str] = set()  # locked for no lease, but until the memory is back
        self._tenders: list[_Tender] = []

    def tend(self, uuids: Iterable[str], vacated: Callable[[str], object]) -> _Tender:
        """Note that somebody watches these cards."""
        tender = _Tender(frozenset(uuids), vacated)
        self._tenders.append(tender)
        return tender

    def leave(self, tender: _Tender) -> bool:
        """End a watch. What nobody watches any more is not withheld; return whether that frees any."""
        if tender not in self._tenders:
            return False
        self._tenders.remove(tender)
        left = [uuid for uuid in tender.uuids if not self.is_tended(uuid)]
        is_loosened = not self.withheld.keys().isdisjoint(left)
        for uuid in left:
            self.forget(uuid)
        return is_loosened

    def forget(self, uuid: str) -> None:
        """Withhold a card no more, nor wait for its lock."""
        self.withheld.pop(uuid, None)
        self.settled(uuid)
        if self.locks is not None:
            self.locks.leave(uuid)

    def settled(self, uuid: str) -> None:
        """Note that the memory of a card is back, or not waited for any more: other processes may have it."""
        if uuid in self._settling:
            self._settling.remove(uuid)
            self._drop(uuid)

    def _drop(self, uuid: str) -> None:
        if self._guards.pop(uuid, None) is not None and self.locks is not None:
            self.locks.drop(uuid)

    def is_tended(self, uuid: str) -> bool:
        return any(uuid in tender.uuids for tender in self._tenders)

    def vacate(self, uuids: Iterable[str]) -> list[Callable[[], object]]:
        """Note that cards have no lease left; return the calls to make once the ledger's lock is free."""
        calls: list[Callable[[], object]] = []
        for uuid in uuids:
            self.others.pop(uuid, None)
            told = [tender for tender in self._tenders if uuid in tender.uuids]
            is_loaded = self.withheld.get(uuid, "").startswith(LOADED)
            if told and (is_loaded or uuid not in self.withheld):
                self.withheld[uuid] = SETTLING
                self._settling.add(uuid)  # nor is it for other processes until its memory is back
            else:  # a fault that was found stays the reason
                self._drop(uuid)
            calls += [_bound(tender.vacated, uuid) for tender in told]
        return calls

    def refused_lock(self, uuids: Iterable[str]) -> str | None:
        """Take the locks that this process has not got yet, all or none; return the card that is another's.

        That one is withheld from then on. So is one that others have waited for long: no further run joins
        those that share it.
        """
        if self.locks is None:
            return None
        taken: list[str] = []
        for uuid in uuids:
            is_ours = uuid in self._guards
            if is_ours and not self.locks.is_due(uuid):
                continue
            guard = None if is_ours else self.locks.take(uuid)
            if guard is None:
                for other in taken:
                    self._drop(other)
                self.withheld[uuid] = DUE if is_ours else _held_by(self.locks.holder(uuid))
                return uuid
            self._guards[uuid] = guard
            taken.append(uuid)
        return None

    def reconsider(self, uuids: Iterable[str]) -> None:
        """Withhold for one decision only what nobody would restore: what is not watched, and what is due.

        A card that is due has runs of this process, after whose end all is decided anew.
        """
        for uuid in uuids:
            if uuid in self._guards or not self.is_tended(uuid):
                self.forget(uuid)

    def guards(self, uuids: Iterable[str]) -> tuple[int, ...]:
        """Return the descriptors of the locks of these cards, as far as there are any."""
        return tuple(self._guards[uuid] for uuid in uuids if uuid in self._guards)

    @property
    def leased(self) -> frozenset[str]:
        """The cards whose lock this process has for leases."""
        return frozenset(self._guards) - self._settling


def _bound(vacated: Callable[[str], object], uuid: str) -> Callable[[], object]:
    return lambda: vacated(uuid)


def _held_by(holder: str | None) -> str:
    return HELD if holder is None else f"{HELD}: {holder}"
