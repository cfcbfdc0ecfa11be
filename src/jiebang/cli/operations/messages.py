"""`jiebang messages`: messages that were given up, and sending them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By, Limit
from jiebang.cli.operations.show import format_age
from jiebang.cli.runner import REFUSED, Json, console, errors, exit_on_error, print_json, with_app
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.model.plain import make_plain

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.app import App
    from jiebang.store.operations.outbox import DeadMessage

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "发不出去的消息(死信):列出,查明原因后重发。",
        "Messages that were given up (dead letters): list them, and replay them once the cause is gone.",
    ),
)
_MOST: Final = 10_000
_KINDS: Final = {
    "person": say("本人", "person"),
    "merchant": say("商户", "merchant"),
    "enterprise": say("企业", "enterprise"),
    "platform": say("平台", "platform"),
    "app": say("应用", "app"),
}


@commands.command(
    help=say("列出死信及其原因。有则退出码为 1。", "List dead letters and why. Exits 1 when there are any.")
)
def dead(limit: Limit = 100, as_json: Json = False) -> None:
    """List dead letters."""
    from jiebang.usecases.operations.messages import list_dead

    async def work(app: App) -> tuple[list[tuple[str | None, DeadMessage]], datetime]:
        found = await list_dead(app.pools["platform"], limit)
        named = [(app.case_ids.encode(one.account_id, one.case_no) if one.case_no else None, one) for one in found]
        return named, app.clock()

    found, now = with_app(work, as_json=as_json)
    if as_json:
        print_json([_to_json(one, case) for case, one in found])
    elif not found:
        console.print(say("没有死信。", "No message was given up."))
    for case, one in () if as_json else found:
        addressee = f"{_KINDS[one.addressee_kind]} {make_plain(one.addressee, lines=False)}".rstrip()
        again = (
            "" if one.replayed_by is None else say(f"  {one.replayed_by} 重发过", f"  replayed by {one.replayed_by}")
        )
        age = format_age(one.dead_at, now)
        line = f"{one.message_id}  {one.template}  {addressee}  {case or ''}  {one.dead_code}  {age}{again}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if found:
        raise typer.Exit(REFUSED)


def _to_json(one: DeadMessage, case: str | None) -> dict[str, object]:
    shown = msgspec.to_builtins(one)
    del shown["account_id"], shown["case_no"]
    return {**shown, "case": case}


@commands.command(
    help=say(
        "重发死信:指定编号,或用 --all(每次至多一万条)。先于该收件人以后的消息发出;操作人会被记录。",
        "Replay dead letters: those named, or --all (10,000 at a time). They go before what is queued later for their "
        "addressees. Who did it is recorded.",
    )
)
def replay(
    by: By,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID…", help=say("消息编号", "Message ids, as listed"))
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help=say("全部死信", "Every dead letter"))] = False,
    as_json: Json = False,
) -> None:
    """Replay dead letters."""
    from jiebang.usecases.operations.messages import replay as queue_again

    with exit_on_error(as_json=as_json):
        if bool(ids) == everything:
            reason = Text("请列出消息编号,或用 --all", "name messages, or say --all")
            raise InvalidInputError(field="ID", reason=reason)
    wanted: Sequence[str] | None = None if everything else ids

    async def work(app: App) -> tuple[list[str], list[str]]:
        return await queue_again(app.pools["platform"], wanted, by, app.clock(), _MOST)

    queued, unknown = with_app(work, as_json=as_json)
    if as_json:
        print_json({"replayed": queued, "unknown": unknown})
    else:
        console.print(say(f"已重发 {len(queued)} 条。", f"Replayed {len(queued)}."))
        if unknown:
            errors.print(say(f"没有这些死信:{', '.join(unknown)}", f"No such dead letter: {', '.join(unknown)}"))
    if unknown:
        raise typer.Exit(REFUSED)
