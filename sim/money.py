"""The money that moves while cases run: transfers between the accounts of a simulated world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.parties import Transfer

if TYPE_CHECKING:
    from sim.world import World


class Money:
    """Transfers as the design has them: a pending entry at both accounts, then completion.

    Every write is one wallet row at its own moment, and how far a transfer is stands in the wallet with it. An account
    that a case holds answers "busy" and is asked again; credits to a closed account go back to their sender; a transfer
    that began always completes, also after the wallet was restored.
    """

    def __init__(self, world: World, accounts: range) -> None:
        """Move money among `accounts`."""
        self.world, self.accounts = world, accounts
        self.epoch, self.stopped = 0, False

    def start(self, transfer: int) -> None:
        """Begin a transfer, or with one account a movement within it: an entry opened and closed again."""
        world = self.world
        if self.stopped:
            return
        sender = self.accounts[world.up_to(len(self.accounts) - 1)]
        others = [account for account in self.accounts if account != sender] or [sender]
        receiver = others[world.up_to(len(others) - 1)]
        amount = min(1 + world.up_to(400), world.wallet.balances[sender])
        self._open(transfer, Transfer(sender, receiver, amount), 3, self.epoch)

    def resume(self) -> None:
        """After a restore, go on with what the wallet says is unfinished."""
        self.epoch, self.stopped = self.epoch + 1, False
        for transfer in self.world.wallet.transfers:
            self.world.after(self.world.up_to(40), self._next, transfer, self.epoch)

    def _open(self, transfer: int, one: Transfer, tries: int, epoch: int) -> None:
        world = self.world
        if epoch != self.epoch or self.stopped:
            return
        if world.wallet.busy(one.sender):
            world.seen["movement answered busy"] += 1
            world.tell("the wallet", f"answers transfer {transfer} of account {one.sender}: busy")
            if tries:
                world.after(1 + world.up_to(60), self._open, transfer, one, tries - 1, epoch)
        elif one.amount <= world.wallet.balances[one.sender] and not world.wallet.closed(one.sender):
            self._write(transfer, one.sender, -one.amount, 1, one)

    def _next(self, transfer: int, epoch: int) -> None:
        """Write what comes next of an open transfer."""
        world, one = self.world, self.world.wallet.transfers.get(transfer)
        if epoch != self.epoch or one is None or self.stopped:
            return
        if one.step == "opened" and (one.receiver == one.sender or world.wallet.closed(one.receiver)):
            self._write(transfer, one.sender, one.amount, -1, None)
        elif one.step == "opened" and world.wallet.busy(one.receiver):
            world.seen["movement answered busy"] += 1
            world.after(1 + world.up_to(60), self._next, transfer, epoch)
        elif one.step == "opened":
            self._write(transfer, one.receiver, 0, 1, one._replace(step="reserved"))
        elif one.step == "reserved":
            self._write(transfer, one.receiver, one.amount, -1, one._replace(step="credited"))
        else:
            self._write(transfer, one.sender, 0, -1, None)

    def _write(self, transfer: int, account: int, amount: int, entries: int, after: Transfer | None) -> None:
        """One wallet row, and with it how far the transfer is (None: it is complete)."""
        world = self.world
        versions = world.wallet.write(account, amount, entries)
        world.tell("the wallet", f"writes transfer {transfer} at account {account}: {amount} fen, {entries:+d} entry")
        world.judge.moved(account, transfer, amount, world.wallet.balances[account], versions)
        if after is None:
            world.wallet.transfers.pop(transfer, None)
        else:
            world.wallet.transfers[transfer] = after
            world.after(world.up_to(40), self._next, transfer, self.epoch)
