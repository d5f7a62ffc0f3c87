"""Which cards a run gets, of those that it may have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aiotune.devices.device import Device
from aiotune.devices.parts import Part, Share, part_on
from aiotune.devices.taken import Taken

__all__ = ["place_shared", "place_whole", "size_of", "to_empty"]

_FAR = 1000  # the place of a card of which nobody knows how close it is: behind all others


def size_of(device: Device) -> float:
    """Return the memory of a card in bytes; one of unknown size counts as the largest."""
    return float("inf") if device.memory_bytes is None else device.memory_bytes


def place_whole(free: Iterable[Device], number: int) -> tuple[Device, ...]:
    """Return so many of the free cards, or as many as there are.

    The smallest, for the large ones are left for larger requests; among equals those that are closest to one
    another; then the first.
    """
    by_size = sorted(free, key=size_of)
    if number >= len(by_size) or number < 2:
        return tuple(by_size[:number])
    largest = size_of(by_size[number - 1])
    smaller = [device for device in by_size if size_of(device) < largest]
    equal = [device for device in by_size if size_of(device) == largest]
    begins = [smaller] if smaller else [[device] for device in equal]
    groups = [_joined(begin, equal, number) for begin in begins]
    nearest = min(groups, key=_spread)
    return tuple(device for device in by_size if device in nearest)


def _joined(begin: Sequence[Device], equal: Sequence[Device], number: int) -> list[Device]:
    """Return `number` cards: those of `begin`, and of the equal ones always the closest to all so far."""
    group = list(begin)
    while len(group) < number:
        rest = [device for device in equal if device not in group]
        group.append(min(rest, key=lambda device: sum(_distance(device, each) for each in group)))
    return group


def _spread(group: Sequence[Device]) -> int:
    return sum(_distance(one, other) for i, one in enumerate(group) for other in group[:i])


def _distance(one: Device, other: Device) -> int:
    """Return how far two cards are from one another, by their places in each other's order."""
    return _rank(one, other) + _rank(other, one)


def _rank(one: Device, other: Device) -> int:
    places = one.neighbours
    return places.index(other.uuid) if other.uuid in places else _FAR


def place_shared(
    fitting: Iterable[Device], share: Share, taken: Taken
) -> tuple[Device, Part | None] | None:
    """Return the card on which a run gets its share, and what that is (None: all of it); None: no room now.

    The smallest that fits, for the large ones are left for larger requests; among equals the fullest, so that
    others stay whole. As long as nobody knows how much the run takes, the largest.
    """
    options = [(device, part_on(device, share)) for device in fitting]
    options = [(device, part) for device, part in options if taken.has_room(device, part)]
    if share.is_open:
        return max(options, key=lambda option: size_of(option[0]), default=None)
    return min(
        options,
        key=lambda option: (size_of(option[0]), -_fullness(option[0], taken)),
        default=None,
    )


def _fullness(device: Device, taken: Taken) -> float:
    use = taken.cards.get(device.uuid)
    return 0.0 if use is None else use.fraction


def to_empty(fitting: Iterable[Device], number: int, taken: Taken) -> tuple[Device, ...]:
    """Return so many shared cards as nobody should join any more, or as many as there are.

    Those with the fewest runs, which stay those from then on.
    """
    shared = [device for device in fitting if taken.may_empty(device)]
    shared.sort(key=lambda device: (taken.cards[device.uuid].runs, size_of(device)))
    return tuple(shared[:number])
