"""Which cards are close to which: the order in which a run of several GPUs wants them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from aiotune.devices.device import Card, Device
from aiotune.devices.nvml import Asker, Handle

__all__ = ["with_neighbours"]

_NVLINK_CAPABILITY = 2  # NVML_P2P_CAPS_INDEX_NVLINK
_CAPABLE = 0  # NVML_P2P_STATUS_OK
# NVML's levels grow with distance, from 0 (one board) by way of PCI switches to 50 (other processor
# sockets). NVLink, or the switches that join it, is faster than all of them.
_NVLINK_DISTANCE = -1


def with_neighbours(asker: Asker, cards: Sequence[Card], whole: Mapping[str, Handle]) -> list[Card]:
    """Return the cards, each device with its neighbours, closest first; equally close ones by index.

    whole: the handles of the cards that are devices themselves, by UUID. Instances of MIG have no
    neighbours: they cannot talk to each other. Where the driver tells no distance there are none either.
    """
    distances = _distances(asker, whole)
    return [
        dataclasses.replace(
            card, devices=tuple(_with_own(device, whole, distances) for device in card.devices)
        )
        for card in cards
    ]


def _with_own(
    device: Device, whole: Mapping[str, Handle], distances: Mapping[frozenset[str], int]
) -> Device:
    def distance(other: str) -> int:
        return distances[frozenset({device.uuid, other})]

    known = [uuid for uuid in whole if frozenset({device.uuid, uuid}) in distances]
    return dataclasses.replace(device, neighbours=tuple(sorted(known, key=distance)))


def _distances(asker: Asker, whole: Mapping[str, Handle]) -> dict[frozenset[str], int]:
    found: dict[frozenset[str], int] = {}
    uuids = list(whole)
    for place, one in enumerate(uuids):
        for other in uuids[place + 1 :]:
            distance = _distance(asker, whole[one], whole[other])
            if distance is not None:
                found[frozenset({one, other})] = distance
    return found


def _distance(asker: Asker, one: Handle, other: Handle) -> int | None:
    """Return how far apart two cards are. That it is not known is no reason to leave one out."""
    nvml = asker.nvml
    try:
        status = asker.optional(nvml.nvmlDeviceGetP2PStatus, one, other, _NVLINK_CAPABILITY)
        if status == _CAPABLE:
            return _NVLINK_DISTANCE
        return asker.optional(nvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
    except asker.errors:
        return None
