"""Cards that are withheld, watched, and locked against other processes, in the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from aiotune.devices.account import Account, Holding
from aiotune.devices.base import HELD, LOADED, SETTLING
from aiotune.devices.ledger import Ledger
from aiotune.devices.offer import Offer
from aiotune.devices.pool import DevicePool, Lease
from aiotune.resources import Resources
from tests.support.leasing import Tenant, gpus, settle, take

PACKED = Resources(gpus="shared", gpu_memory="30GiB")
HALF = Resources(gpus=0.5)


class FakeLocks:
    """Locks of a machine with one other process, which has the cards in `others`."""

    def __init__(self, others: Sequence[str] = ()) -> None:
        self.others = set(others)
        self.held: list[str] = []
        self.left: list[str] = []

    def take(self, uuid: str) -> int | None:
        assert uuid not in self.held
        if uuid in self.others:
            return None
        self.held.append(uuid)
        return 100 + ord(uuid)

    def leave(self, uuid: str) -> None:
        self.left.append(uuid)

    def drop(self, uuid: str) -> None:
        self.held.remove(uuid)

    def is_due(self, uuid: str) -> bool:
        return False

    def holder(self, uuid: str) -> str | None:
        return "process 7" if uuid in self.others else None


def shared_pool(*gibibytes: int, locks: FakeLocks | None = None) -> tuple[Ledger, DevicePool]:
    ledger = Ledger()
    ledger.locks = locks
    cards = gpus(*gibibytes)
    pool = DevicePool(cards, cores=range(8), slots=len(cards), shared_slots=8, ledger=ledger)
    return ledger, pool


# Withheld


def test_a_card_that_is_withheld_gets_no_new_lease() -> None:
    ledger, pool = shared_pool(80, 80)
    held = take(pool, HALF)
    ledger.withhold("a", "a fault")
    assert ledger.withheld == {"a": "a fault"}
    assert pool.free.gpus == ("b",)
    assert take(pool, HALF).gpus == ("b",)
    assert not pool.has_room(Resources())
    held.release()
    assert not pool.has_room(Resources())
    ledger.restore("a")
    assert take(pool).gpus == ("a",)


async def test_who_waits_is_served_when_a_card_is_restored() -> None:
    ledger, pool = shared_pool(80)
    heard: list[str] = []
    pool.subscribe(lambda: heard.append("heard"))
    ledger.withhold("a", "a fault")
    tenant = Tenant(pool, Resources())
    await settle()
    assert tenant.is_waiting
    ledger.restore("a")
    ledger.restore("a")  # the second time it does nothing
    await settle()
    assert tenant.held is not None
    assert heard == ["heard"]
    tenant.leave()
    await tenant.task


def test_leases_are_counted_over_all_pools() -> None:
    ledger, pool = shared_pool(80, 80)
    other = DevicePool(gpus(80), cores=range(8), slots=1, shares=2, shared_slots=8, ledger=ledger)
    leases = [take(pool, HALF), take(other, HALF), take(pool)]
    assert (ledger.lease_count("a"), ledger.lease_count("b")) == (2, 1)
    for lease in leases:
        lease.release()
    assert (ledger.lease_count("a"), ledger.lease_count("b")) == (0, 0)


# Tended


def test_the_last_release_of_a_card_that_is_watched_withholds_it_until_its_memory_is_back() -> None:
    ledger, pool = shared_pool(80, 80)
    told: list[tuple[str, str]] = []
    leave = ledger.tend(["a"], lambda uuid: told.append((uuid, ledger.withheld[uuid])))
    one, other, third = take(pool, HALF), take(pool, HALF), take(pool)
    one.release()
    assert told == []
    other.release()
    third.release()  # nobody watches that one
    assert told == [("a", SETTLING)]
    assert pool.free.gpus == ("b",)
    ledger.restore("a")
    assert pool.free == pool.total
    take(pool).release()
    assert ledger.withheld == {"a": SETTLING}
    leave()
    leave()
    assert pool.free == pool.total


def test_a_card_is_withheld_as_long_as_somebody_watches_it() -> None:
    ledger, pool = shared_pool(80)
    leaves = [ledger.tend(["a"], lambda uuid: None) for _ in range(2)]
    take(pool).release()
    leaves[0]()
    assert ledger.withheld == {"a": SETTLING}
    leaves[1]()
    assert ledger.withheld == {}


def test_a_fault_stays_the_reason_when_the_last_lease_is_released() -> None:
    ledger, pool = shared_pool(80)
    ledger.tend(["a"], lambda uuid: None)
    lease = take(pool)
    ledger.withhold("a", "a fault")
    lease.release()
    assert ledger.withheld == {"a": "a fault"}


def test_a_busy_card_settles_like_any_other_when_its_last_lease_is_released() -> None:
    ledger, pool = shared_pool(80)
    told: list[str] = []
    ledger.tend(["a"], told.append)
    lease = take(pool, PACKED)
    busy = f"{LOADED} to 97 %: no further run shares it"
    ledger.withhold("a", busy)
    assert pool.lease_nowait(PACKED) is None
    lease.release()
    assert ledger.withheld == {"a": SETTLING}
    assert told == ["a"]
    ledger.restore("a", busy)  # by who has not heard of the release yet
    assert ledger.withheld == {"a": SETTLING}
    ledger.restore("a", SETTLING)
    assert pool.free == pool.total


# Locked


def test_the_first_lease_of_a_card_takes_its_lock_and_the_last_release_drops_it() -> None:
    locks = FakeLocks()
    _, pool = shared_pool(80, 80, locks=locks)
    one, two, both = take(pool, HALF), take(pool, HALF), take(pool)
    assert [lease.guards for lease in (one, two, both)] == [(197,), (197,), (198,)]
    assert locks.held == ["a", "b"]
    for lease, held in ((one, ["a", "b"]), (both, ["a"]), (two, [])):
        lease.release()
        assert locks.held == held


def test_a_card_of_another_process_is_withheld_and_another_chosen() -> None:
    locks = FakeLocks(["a", "b"])
    ledger, pool = shared_pool(80, 80, 80, locks=locks)
    ledger.tend("abc", lambda uuid: None)
    assert take(pool).gpus == ("c",)
    assert ledger.withheld == dict.fromkeys("ab", f"{HELD}: process 7")
    assert pool.lease_nowait(Resources()) is None
    locks.others.clear()
    assert not pool.has_room(Resources())
    ledger.restore("b")
    assert take(pool).gpus == ("b",)


def test_several_cards_are_locked_all_or_none() -> None:
    locks = FakeLocks(["b"])
    ledger, pool = shared_pool(80, 80, locks=locks)
    ledger.tend("ab", lambda uuid: None)
    assert pool.lease_nowait(Resources(gpus=2)) is None
    assert locks.held == []
    assert pool.free.gpus == ("a",)
    assert f"b: {HELD}: process 7" in pool.why(Resources(gpus=2))


def test_a_card_that_nobody_watches_is_passed_over_and_tried_again() -> None:
    locks = FakeLocks(["a"])
    ledger, pool = shared_pool(80, locks=locks)
    assert pool.lease_nowait(Resources()) is None
    assert ledger.withheld == {}
    locks.others.clear()
    assert take(pool).guards == (197,)


def test_the_lock_is_kept_until_the_memory_is_back() -> None:
    locks = FakeLocks()
    ledger, pool = shared_pool(80, locks=locks)
    ledger.tend("a", lambda uuid: None)
    take(pool).release()
    assert locks.held == ["a"]
    ledger.restore("a")
    assert locks.held == []
    assert pool.free == pool.total


def test_who_watches_no_more_waits_for_no_lock() -> None:
    locks = FakeLocks(["a"])
    ledger, pool = shared_pool(80, locks=locks)
    leave = ledger.tend("a", lambda uuid: None)
    assert pool.lease_nowait(Resources()) is None
    leave()
    assert locks.left == ["a"]
    assert ledger.withheld == {}


def test_runs_that_were_refused_a_lock_are_not_counted() -> None:
    locks = FakeLocks(["a"])
    _, pool = shared_pool(80, locks=locks)
    leases: list[Lease | None] = [pool.lease_nowait(HALF) for _ in range(3)]
    assert leases == [None] * 3
    assert pool.free == pool.total


def test_pools_may_be_forgotten_while_the_ledger_looks_through_them() -> None:
    """The garbage collector may end a pool at any moment, also under an iteration over all of them."""
    ledger = Ledger()
    ledger.locks = FakeLocks()

    def account() -> Account:
        return ledger.open(Offer((), range(8), shares=2, is_exclusive=False), 2, None)

    forgetful, forgotten = account(), [account() for _ in range(3)]
    busy = DevicePool(gpus(80), cores=range(8), slots=1, ledger=ledger)
    lease = take(busy)  # so that the end of a pool looks for cards that nobody has any more

    class Leases(dict[Lease, Holding]):
        def __len__(self) -> int:
            forgotten.clear()
            return 0

    forgetful.leases = Leases()

    assert ledger.is_in_use
    assert forgotten == []
    lease.release()
