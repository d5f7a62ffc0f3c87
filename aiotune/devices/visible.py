"""Which cards the caller's CUDA_VISIBLE_DEVICES leaves: a GPU that it hides is never used.

The rules are CUDA's, as PyTorch found and wrote them down (torch.cuda, `_parse_visible_devices` and
`_transform_uuid_to_ordinals`): the first characters decide whether the list holds names or indices;
an index is read like C's `strtoul`, so that "1x" is 1; the first entry that names nothing ends the
list; an entry that comes twice empties it.

A name or index of a card that is split by MIG stands for all instances on that card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from aiotune.devices.device import Card, Device, Discovery

__all__ = ["VARIABLE", "visible"]

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
_NAME_PREFIXES = ("GPU-", "MIG-")


class _Empty(Exception):
    """An entry comes twice: nothing is visible. The message says which."""


def visible(cards: Sequence[Card], environment: Mapping[str, str]) -> Discovery:
    """Return the devices that the variable leaves, in its order; `cards` are in PCI bus order."""
    text = environment.get(VARIABLE)
    if text is None:
        return Discovery(tuple(device for card in cards for device in card.devices))
    try:
        if text.startswith(_NAME_PREFIXES):
            devices, junk = _by_name(cards, text)
            note = None
        else:
            chosen, junk = _by_index(cards, text)
            devices = [device for index in chosen for device in cards[index].devices]
            note = _order_note(cards, chosen, environment)
    except _Empty as error:
        return Discovery((), f"{VARIABLE}={text!r} leaves no GPU visible: {error}")
    return Discovery(tuple(devices), _problem(text, junk, note, is_empty=not devices))


def _by_index(cards: Sequence[Card], text: str) -> tuple[list[int], str | None]:
    """Return the indices in use, and the first entry that names no card."""
    entries = text.split(",")
    indices: list[int] = []
    for entry in entries:
        number = re.match(r"\s*([+-]?[0-9]+)", entry)
        index = int(number[1]) if number else -1
        if index in indices:
            raise _Empty(f"it names GPU {index} twice")
        if index < 0:
            break
        indices.append(index)
    good = next((i for i, index in enumerate(indices) if index >= len(cards)), len(indices))
    return indices[:good], _entry_at(entries, good)


def _by_name(cards: Sequence[Card], text: str) -> tuple[list[Device], str | None]:
    """Return the devices in use, and the first entry that names none, or several."""
    entries = text.split(",")
    prefix = text[:4]  # one kind of name only: the first entry's
    chosen: list[Device] = []
    for place, entry in enumerate(entries):
        named = _named(cards, entry) if entry.startswith(prefix) else None
        if named is None:
            return chosen, _entry_at(entries, place)
        if any(device in chosen for device in named):
            raise _Empty(f"it names {named[0].uuid} twice")
        chosen += named
    return chosen, None


def _named(cards: Sequence[Card], prefix: str) -> list[Device] | None:
    """Return what the one name with this prefix stands for; None: there is no such name, or several.

    The name of a card that cannot be used stands for nothing, but does not end the list.
    """
    names: dict[str, Iterable[Device]] = {}
    for card in cards:
        if card.uuid is not None:
            names[card.uuid] = card.devices
        names |= {device.uuid: (device,) for device in card.devices if device.kind == "mig"}
    matches = [devices for name, devices in names.items() if name.startswith(prefix)]
    return list(matches[0]) if len(matches) == 1 else None


def _entry_at(entries: Sequence[str], place: int) -> str | None:
    return entries[place] if place < len(entries) else None


def _order_note(
    cards: Sequence[Card], chosen: Sequence[int], environment: Mapping[str, str]
) -> str | None:
    """Say so where an index may mean another card to CUDA than to us.

    CUDA numbers the fastest card first unless CUDA_DEVICE_ORDER says otherwise; NVML cannot tell
    which that is. Equal cards keep their PCI order, and all cards are all cards in any order.
    """
    is_subset = len(chosen) < len(cards)
    if not chosen or not is_subset or len({card.name for card in cards}) == 1:
        return None
    if environment.get(ORDER_VARIABLE) == "PCI_BUS_ID":
        return None
    return (
        f"the cards differ and {VARIABLE} holds indices, which were read in PCI order: "
        f"set {ORDER_VARIABLE}=PCI_BUS_ID, or write UUIDs"
    )


def _problem(text: str, junk: str | None, note: str | None, *, is_empty: bool) -> str | None:
    problem = None
    if is_empty:
        problem = f"{VARIABLE}={text!r} leaves no GPU visible"
    if junk is not None and junk.strip() not in ("", "-1"):  # the two usual ways to end the list
        what = f"{junk!r} names no GPU here, or several"
        if problem is None:
            what = f"{VARIABLE}={text!r}: {what}; as in CUDA, it and what follows are ignored"
        problem = what if problem is None else f"{problem}: {what}"
    return "; ".join(part for part in (problem, note) if part) or None
