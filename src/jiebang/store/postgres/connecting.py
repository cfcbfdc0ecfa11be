"""Why a database cannot be connected to, in words that hold no secret: the reason, never what was sent."""

from __future__ import annotations

import socket
import ssl
from typing import Final

import asyncpg

from jiebang.model.check import Text

_REASONS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Text], ...]] = (
    (
        asyncpg.InvalidPasswordError,
        Text("用户名或密码不对", "the user name or the password is wrong"),
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        Text(
            "服务器不接受此用户从本机登录(pg_hba.conf、TLS 或用户名)",
            "the server does not let this user in from here (pg_hba.conf, TLS, or the user's name)",
        ),
    ),
    (
        asyncpg.InvalidCatalogNameError,
        Text(
            "服务器上没有这个名称的数据库:请先创建",
            "the server has no database of this name: create it first",
        ),
    ),
    (
        asyncpg.InsufficientPrivilegeError,
        Text("此用户无权连接这个数据库", "this user may not connect to this database"),
    ),
    (
        asyncpg.TooManyConnectionsError,
        Text(
            "服务器的连接已满:减小 [connections] per_server,或增大 max_connections",
            "the server has no connection left: lower [connections] per_server or raise max_connections",
        ),
    ),
    (asyncpg.CannotConnectNowError, Text("服务器正在启动或停止", "the server is starting or stopping")),
    (
        asyncpg.ProtocolViolationError,
        Text(
            "中间的连接池拒绝了会话参数:见 docs/operations.md 的“连接池”一节",
            "a pooler in between refuses our session's settings: see docs/operations.md on poolers",
        ),
    ),
    (
        ConnectionRefusedError,
        Text(
            "该主机和端口没有程序在监听:地址或端口不对,或数据库未运行",
            "nothing listens at this host and port: one of them is wrong, or the database does not run",
        ),
    ),
    (socket.gaierror, Text("找不到这个主机名", "there is no host of this name")),
    (
        ssl.SSLError,
        Text("TLS 握手失败:证书不受信任或不匹配", "TLS failed: the certificate is not trusted or not its own"),
    ),
    (
        asyncpg.ClientConfigurationError,
        Text("地址中的参数有误", "a parameter of the address is wrong"),
    ),
    (
        TimeoutError,
        Text(
            "在时限内没有应答:主机不可达,或防火墙拦截",
            "no answer in time: the host cannot be reached, or a firewall is in the way",
        ),
    ),
    (asyncpg.PostgresError, Text("服务器拒绝了连接", "the server refused the connection")),
    (OSError, Text("网络错误", "the network failed")),
)


def explain_failure(error: BaseException) -> Text:
    """Return why connecting failed. Never what the server or the driver said: that may quote what was sent."""
    if isinstance(error, OSError) and isinstance(error.__cause__ or error.__context__, ConnectionRefusedError):
        error = error.__cause__ or error.__context__ or error
    reason = next((text for kinds, text in _REASONS if isinstance(error, kinds)), None)
    return reason or Text(f"连接失败({type(error).__name__})", f"connecting failed ({type(error).__name__})")
