"""Places: one or two accounts side by side, the transfer between them, and what is left to happen, in one number.

The steps of an account are worked out once for each of its states; a place only combines them. So two accounts with a
transfer between them cost little more than their states' product.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from sim.account import Account, Accounts
from sim.properties import broken, during

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.states import Bounds
    from sim.turns import Habits
    from sim.world import Parts

ACCOUNT_BITS, TRANSFER_BITS, BUDGET_BITS = 24, 4, 4
_Moved = tuple[str, list[int], int]
"""What a transfer did: told, the accounts' states after it, and where it stands."""
MOST: Final = 3
"""The most faults and the most transfers of a world."""


class Local:
    """One account's states by number, and where each leads. Worked out when first asked."""

    def __init__(self, accounts: Accounts) -> None:
        """Take what an account may do."""
        self.accounts = accounts
        self.numbers: dict[Account, int] = {}
        self.states: list[Account] = []
        self.leads: list[list[tuple[int, int]]] = []
        self.faults = array("b")
        self.due = bytearray()
        self.live = bytearray()
        self.money: dict[tuple[int, int], int] = {}
        self.closing: list[int] = []

    def number(self, account: Account) -> int:
        """The number of a state, judged when it is first seen."""
        number = self.numbers.get(account)
        if number is None:
            self.accounts.judge(account)
            number = self.numbers[account] = len(self.states)
            self.states.append(account)
            self.leads.append([])
            self.faults.append(-1)
            self.due.append(0)
            self.live.append(self.accounts.live(account))
        return number

    def of(self, number: int, faults: int) -> list[tuple[int, int]]:
        """(next state, cost) of all steps but movements of money with at most `faults`, the cheapest way to each."""
        if faults > self.faults[number]:
            accounts, cheapest = self.accounts, dict[int, int]()
            for told, cost, due_course, account in accounts.steps(self.states[number], faults):
                after = accounts.sorted(account)
                reached = self.numbers.get(after)
                if reached is None:
                    with during(accounts.name(told)):
                        reached = self.number(after)
                if reached != number:
                    self.due[number] |= due_course
                    if cheapest.get(reached, MOST + 1) > cost:
                        cheapest[reached] = cost
            if self.live[number] and not self.due[number] and not accounts.entries(self.states[number]):
                broken(f"P9: nothing is due, and this has not ended: {accounts.say(self.states[number])}")
            self.faults[number], self.leads[number] = faults, list(cheapest.items())
        return self.leads[number]

    def moved(self, number: int, entries: int) -> int:
        """The state after an entry was opened (+1) or ended (-1); -1 where it is answered busy, or closed."""
        key = (number, entries)
        after = self.money.get(key)
        if after is None:
            account = self.accounts.moved(self.states[number], entries)
            after = self.money[key] = -1 if account is None else self.number(self.accounts.sorted(account))
        return after

    def entries(self, number: int) -> int:
        """How many entries are open."""
        return self.accounts.entries(self.states[number])

    def closed(self, number: int) -> bool:
        """Whether a credit returns to its sender."""
        return self.accounts.closed(self.states[number])

    def at_rest(self, number: int) -> bool:
        """Whether it has had all its cases, all have ended, and no money is under way."""
        case_no = self.accounts.head(self.states[number]).case_no
        return not self.live[number] and not self.entries(number) and case_no == self.accounts.shape.cases

    def cycle(self) -> int:
        """A state from which one can come back to it without another fault; -1 if there is none (Kahn's algorithm)."""
        leads = [
            [after for after, cost in self.leads[number] if not cost]
            + [after for after in (self.money.get((number, -1), -1),) if after >= 0]
            for number in range(len(self.states))
        ]
        waiting = array("l", [0]) * len(leads)
        for of_one in leads:
            for after in of_one:
                waiting[after] += 1
        free = [number for number, count in enumerate(waiting) if not count]
        done = 0
        while free:
            done += 1
            for after in leads[free.pop()]:
                waiting[after] -= 1
                if not waiting[after]:
                    free.append(after)
        return -1 if done == len(leads) else next(number for number, count in enumerate(waiting) if count)


class World:
    """Places of a world: its accounts' states, the transfer under way, and what is left to happen, in one number."""

    def __init__(self, bounds: Bounds, parts: Parts, habits: Habits | None = None) -> None:
        """Take the bounds, the parts (which planted mistakes change) and the workers' habits."""
        self.bounds = bounds
        shared = {shape: Local(Accounts(shape, parts, habits)) for shape in bounds.accounts}
        self.locals = [shared[shape] for shape in bounds.accounts]
        self.alike = len(shared) < len(self.locals)

    def start(self) -> int:
        """Nobody has asked for anything."""
        numbers = [local.number(local.accounts.start()) for local in self.locals]
        return self.place(numbers, 0, self.bounds.faults * 4 + self.bounds.transfers)

    def place(self, numbers: list[int], transfer: int, budget: int) -> int:
        """The number of a place; of two like accounts the one with the lower state stands first."""
        if self.alike and numbers[0] > numbers[1]:
            numbers = [numbers[1], numbers[0]]
            transfer ^= transfer > 1
        place = 0
        for number in numbers:
            place = place << ACCOUNT_BITS | number
        return (place << TRANSFER_BITS | transfer) << BUDGET_BITS | budget

    def read(self, place: int) -> tuple[list[int], int, int]:
        """The accounts' states, the transfer, what is left."""
        budget, place = place & 15, place >> BUDGET_BITS
        transfer, place = place & 15, place >> TRANSFER_BITS
        if len(self.locals) == 1:
            return [place], transfer, budget
        return [place >> ACCOUNT_BITS, place & (1 << ACCOUNT_BITS) - 1], transfer, budget

    def after(self, place: int) -> Iterator[int]:
        """Everything that may come next. Where accounts keep their places, a step only adds to the place's number."""
        numbers, transfer, budget = self.read(place)
        faults = budget >> 2
        shift = BUDGET_BITS + TRANSFER_BITS + ACCOUNT_BITS * len(numbers)
        for at, local in enumerate(self.locals):
            shift -= ACCOUNT_BITS
            number = numbers[at]
            for after, cost in local.of(number, faults):
                if cost > faults:
                    continue
                if self.alike:
                    yield self.place(
                        [after if at == one else numbers[one] for one in (0, 1)], transfer, budget - cost * 4
                    )
                else:
                    yield place + (after - number << shift) - (cost << 2)
        going = [*self._goes_on(numbers, transfer)]
        stands = not going and not any(local.due[number] for local, number in zip(self.locals, numbers, strict=True))
        if stands and (transfer or any(map(self._busy, self.locals, numbers))):
            broken(f"P9: nothing is due, and this has not ended: {self.say(place)}")
        for _, numbers_after, transfer_after in going:
            yield self.place(numbers_after, transfer_after, budget)
        if budget & 3:
            for _, numbers_after, transfer_after in self._begins(numbers, transfer):
                yield self.place(numbers_after, transfer_after, budget - 1)

    def money(self, numbers: list[int], transfer: int, budget: int) -> Iterator[tuple[str, list[int], int, int]]:
        """What a transfer may do next, told; for the story."""
        for told, after, going in self._goes_on(numbers, transfer):
            yield told, after, going, budget
        if budget & 3:
            for told, after, going in self._begins(numbers, transfer):
                yield told, after, going, budget - 1

    def _busy(self, local: Local, number: int) -> bool:
        return bool(local.live[number] or local.entries(number))

    # Money. With two accounts, `transfer` is twice its phase and the sender's place: 1 the sender's entry is written,
    # 2 both are, 3 the receiver's has ended, 4 the sender's has.

    def _begins(self, numbers: list[int], transfer: int) -> Iterator[_Moved]:
        if not transfer:
            for sender in range(len(numbers)):
                phase = 0 if len(numbers) == 1 else 2 + sender
                yield from self._moved("a transfer begins: its entry is written at", numbers, sender, 1, phase)

    def _goes_on(self, numbers: list[int], transfer: int) -> Iterator[_Moved]:
        if len(numbers) == 1:
            if self.locals[0].entries(numbers[0]):
                yield from self._moved("the transfer's entry ends at", numbers, 0, -1, 0)
            return
        phase, sender = transfer >> 1, transfer & 1
        receiver = 1 - sender
        if phase == 1:
            if self.locals[receiver].closed(numbers[receiver]):
                yield from self._moved("the transfer returns to", numbers, sender, -1, 0)
            else:
                yield from self._moved("its other entry is written at", numbers, receiver, 1, 4 + sender)
        elif phase == 2:  # noqa: PLR2004 - see above
            yield from self._moved("it is credited to", numbers, receiver, -1, 6 + sender)
            yield from self._moved("its entry ends at", numbers, sender, -1, 8 + sender)
        elif phase:
            yield from self._moved("its last entry ends at", numbers, sender if phase == 3 else receiver, -1, 0)  # noqa: PLR2004 - see above

    def _moved(self, told: str, numbers: list[int], at: int, entries: int, transfer: int) -> Iterator[_Moved]:
        with during(f"{told} the wallet of account {at + 1}"):
            after = self.locals[at].moved(numbers[at], entries)
        if after >= 0:
            rest = numbers.copy()
            rest[at] = after
            yield f"{told} the wallet of account {at + 1}", rest, transfer

    # In words.

    def at_rest(self, place: int) -> bool:
        """Whether everybody has had all their cases, all have ended, and no money is under way."""
        numbers, transfer, _ = self.read(place)
        return not transfer and all(local.at_rest(number) for local, number in zip(self.locals, numbers, strict=True))

    def ending(self, place: int) -> str:
        """How the cases ended, for the count."""
        numbers, _, _ = self.read(place)
        outcomes = [
            ", ".join(local.accounts.outcome(local.states[number]))
            for local, number in zip(self.locals, numbers, strict=True)
        ]
        return " | ".join(sorted(outcomes))

    def say(self, place: int) -> str:
        """A place in words."""
        numbers, transfer, _ = self.read(place)
        told = [local.accounts.say(local.states[number]) for local, number in zip(self.locals, numbers, strict=True)]
        return " | ".join(told) + (" | a transfer under way" if transfer else "")
