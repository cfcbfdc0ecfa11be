"""Commands of the platform's engineers: serve, worker, migrate, verify."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jiebang.cli.language import say
from jiebang.cli.progress import progress_over_accounts
from jiebang.cli.runner import REFUSED, Json, console, errors, print_json, run, with_app
from jiebang.model.errors import PortTakenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from rich.console import Console

    from jiebang.app import App
    from jiebang.usecases.operations.verify import VerificationReport
    from jiebang.worker import Worker

_WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True)]


def _serve(
    host: Annotated[str | None, typer.Option(help=say("监听地址", "Address to listen on"))] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help=say("端口;0 为任选", "Port; 0 for any free one"))
    ] = None,
    with_parent: _WithParent = False,
) -> None:
    """Serve the API until told to stop."""
    import uvicorn

    from jiebang.api.gate.uvicorn_protocol import server_config

    async def work(app: App) -> None:
        http = app.settings.http
        listening = _open_socket(host or http.host, http.port if port is None else port)
        config = server_config(app.api(), trusted_proxies=http.trusted_proxies)
        _announce_address(listening.getsockname(), machine=with_parent)
        await uvicorn.Server(config).serve(sockets=[listening])

    _serve_until_told(work, pool_size=16, with_parent=with_parent)


def _serve_until_told(work: Callable[[App], Awaitable[None]], *, pool_size: int, with_parent: bool) -> None:
    """Run a process that logs, and that starts even while the platform's database is unavailable."""
    from jiebang.api.logs import configure_logs
    from jiebang.parent import die_with_parent

    if with_parent:
        die_with_parent()

    async def logging(app: App) -> None:
        configure_logs(sys.stderr)
        warn_of_edited_packs(app, errors)
        _warn_platform_silent(app)
        await work(app)

    with_app(logging, pool_size=pool_size, patient=True, makes_home=True)


def warn_of_edited_packs(app: App, screen: Console) -> None:
    """Warn that the file of a pack was edited without effect: a version never changes once it was added."""
    for pack in app.startup.edited:
        name = pack.partition("/")[0]
        screen.print(
            say(
                f"注意:{name}.yaml 已被改动,但 {pack} 早已加入,仍按加入时的内容执行,改动不起作用。"
                f"请把文件中的 version 加一,再执行 jiebang policy add 与 activate。",
                f"Note: {name}.yaml was edited, but {pack} was added before and stays as it was then: the edit has no "
                f"effect. Raise its version, then run jiebang policy add and activate.",
            ),
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _open_socket(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PortTakenError(host=host, port=port) from error
    listening.listen(2048)
    return listening


def _announce_address(address: tuple[str, int], *, machine: bool) -> None:
    """Print where this process listens: for the parent process as JSON, else for a person."""
    if machine:
        sys.stdout.write(f'{{"port": {address[1]}}}\n')
        sys.stdout.flush()
    else:
        url = f"http://{address[0]}:{address[1]}"
        console.print(say(f"接口:{url}  文档:{url}/openapi.json", f"API: {url}  document: {url}/openapi.json"))


def _run_worker(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help=say("指标端口;不填则不开放", "Port for /metrics; none without it")),
    ] = None,
    with_parent: _WithParent = False,
) -> None:
    """Drive cases until told to stop."""
    from prometheus_client import start_http_server

    async def work(app: App) -> None:
        worker = app.worker()
        joining = asyncio.create_task(app.startup.done.wait())
        _stop_on_signals(worker, joining)
        if port is not None or with_parent:
            try:
                server, _ = start_http_server(port or 0, addr="127.0.0.1")
            except OSError as error:
                raise PortTakenError(host="127.0.0.1", port=port or 0) from error
            _announce_address(("127.0.0.1", server.server_port), machine=with_parent)
        else:
            console.print(say("工作进程已启动,按 Ctrl-C 停止。", "The worker runs; Ctrl-C stops it."))
        await asyncio.wait({joining})
        if not joining.cancelled():
            await worker.run()

    _serve_until_told(work, pool_size=8, with_parent=with_parent)


def _stop_on_signals(worker: Worker, joining: asyncio.Task[bool]) -> None:
    """On SIGINT or SIGTERM stop the worker, or its wait for the platform's database."""

    def stop() -> None:
        joining.cancel()
        worker.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _warn_platform_silent(app: App) -> None:
    """Warn that the platform's database does not answer yet."""
    if not app.startup.done.is_set():
        told = say(
            "平台数据库暂无应答;进程已启动,待其应答后自动开始。原因见日志 platform_awaited。",
            "The platform's database does not answer yet. This process runs, and begins by itself once it does; the "
            "log says why (platform_awaited).",
        )
        errors.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _migrate(as_json: Json = False) -> None:
    """Bring every database to the newest schema."""
    from jiebang.app import load_settings, migrate

    async def work() -> Mapping[str, tuple[int, ...]]:
        return await migrate(load_settings())

    done = run(work(), as_json=as_json)
    if as_json:
        print_json({name: list(versions) for name, versions in done.items()})
        return
    for name, versions in done.items():
        told = ", ".join(map(str, versions)) or say("已是最新", "up to date")
        console.print(f"{name}: {told}")


def _verify(as_json: Json = False) -> None:
    """Audit everything."""
    from jiebang.cli.show import show_audit

    async def work(app: App) -> VerificationReport:
        async with progress_over_accounts(app, say("审计", "Audit")) as progress:
            return await app.verify(progress)

    report = with_app(work, as_json=as_json)
    if as_json:
        print_json(audit_summary(report) | {"detail": report})
    else:
        show_audit(console, report)
    if not report.clean:
        raise typer.Exit(REFUSED)


def audit_summary(report: VerificationReport) -> dict[str, Any]:
    """Return an audit's counts of accounts, cases and violations."""
    return {"accounts": report.accounts, "cases": report.cases, "violations": report.violation_count}


def register(cli: typer.Typer) -> None:
    """Add these commands to the command line."""
    cli.command("serve", help=say("运行 HTTP 接口。", "Serve the HTTP API."))(_serve)
    cli.command("worker", help=say("运行工作进程;可同时运行任意多个。", "Run a worker; any number may run."))(
        _run_worker
    )
    cli.command(
        "migrate",
        help=say(
            "把所有数据库升级到最新结构;空的安装同时生成密钥。",
            "Bring every database to the newest schema, and make the keys of an empty installation.",
        ),
    )(_migrate)
    cli.command(
        "verify",
        help=say(
            "审计所有数据库与清算机构:申请结束后各方是否一致,栅栏标记是否都有申请对应,资金是否守恒。"
            "发现问题时退出码为 1。",
            "Audit all databases and networks: no case ended with participants disagreeing, every fence mark explained "
            "by a case, money conserved. Exits 1 when something is wrong.",
        ),
    )(_verify)
