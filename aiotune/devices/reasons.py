"""Why a request is not served now, in words."""

from __future__ import annotations

from collections.abc import Iterator

from aiotune.devices.account import Account
from aiotune.devices.base import LOADED
from aiotune.devices.device import Device
from aiotune.devices.offer import Offer, Request, counted, gibibytes
from aiotune.devices.parts import part_on, usable_bytes
from aiotune.devices.taken import Taken

__all__ = ["why_refused"]


def why_refused(account: Account, request: Request, taken: Taken) -> str:
    """Return what keeps the account from a lease."""
    request = account.with_need(request)
    if account.is_full(request):
        return f"the search has {counted(len(account.leases), 'slot')}, all in use"
    if not account.has_memory(request, taken):
        counts = gibibytes(account.bytes_of(request))
        return f"a run counts {counts} of memory, and so much is not left"
    return "; ".join(_lacks(account.offer, request, taken)) or (
        "what is free is kept for a run that comes first"
    )


def _lacks(offer: Offer, request: Request, taken: Taken) -> Iterator[str]:
    if offer.place(request, taken) is None:
        yield from _cards(offer, request, taken)
    elif offer.choose_cores(request, taken) is None:
        free = len(offer.free_cores(taken))
        yield f"{counted(request.cpus, 'core')} needed, {free} free"


def _cards(offer: Offer, request: Request, taken: Taken) -> Iterator[str]:
    """Yield for each reason the cards that it keeps from the request."""
    fitting = offer.fitting(request)
    if request.gpus > 1:
        free = sum(map(taken.is_free, fitting))
        yield f"{request.gpus} GPUs needed, {free} free"
    reasons: dict[str, list[str]] = {}
    for device in offer.devices:
        if device not in fitting:
            reasons.setdefault(_unfit(device, request), []).append(device.uuid)
        elif reason := _card(device, request, taken):
            reasons.setdefault(reason, []).append(device.uuid)
    for reason, uuids in reasons.items():
        yield f"{', '.join(uuids)}: {reason}"


def _unfit(device: Device, request: Request) -> str:
    return "a MIG instance" if request.gpus > 1 and device.kind == "mig" else "too small"


def _card(device: Device, request: Request, taken: Taken) -> str | None:
    why = taken.withheld.get(device.uuid)
    part = None if request.share is None else part_on(device, request.share)
    # Who wants all of a card waits for the end of its runs, busy or not, and a fraction is served all the same.
    heeds_load = part is not None and part.is_packed
    if why is not None and (heeds_load or not why.startswith(LOADED)):
        return why
    use = taken.cards.get(device.uuid)
    if use is None:
        return None
    if use.is_closed:
        return "leased"
    if part is None or part.memory_bytes is None or device.memory_bytes is None:
        return f"shared by {counted(use.runs, 'run')}"
    others = taken.others.get(device.uuid, 0)
    left = max(0, usable_bytes(device.memory_bytes) - use.memory_bytes - others)
    return f"shared by {counted(use.runs, 'run')}, with {gibibytes(left)} left"
