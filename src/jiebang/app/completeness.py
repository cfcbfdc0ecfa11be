"""What an installation lacks before it may start: what is not configured, and files that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jiebang.keys import list_missing
from jiebang.remote import stand_ins
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.verifier import VERIFIER
from jiebang.settings import Settings, SettingsProblem
from jiebang.store.postgres.embedded import placement
from jiebang.store.postgres.shares import find_server

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry

_NOT_SET: Final = ("没有设置,沙箱也不得代替", "is not set, and the sandbox may not stand in")
_ISSUER: Final = "issuer"
_GATEWAY: Final = "gateway_url"
_VERIFIER: Final = "verifier_url"


def may_stand_in(settings: Settings) -> bool:
    """Whether the sandbox may stand in for what is not configured: where the settings say so, and in a demo's home."""
    if settings.sandbox is None:
        return settings.databases is None and (settings.home / stand_ins.DEMO).exists()
    return settings.sandbox


def _list_unconfigured(settings: Settings, declared: ParticipantRegistry) -> tuple[str, ...]:
    """Return which outside parties are not configured, as the settings name them."""
    networks = settings.networks or {}
    return (
        *((_ISSUER,) if settings.issuer is None else ()),
        *((_GATEWAY,) if settings.gateway_url is None else ()),
        *(f"networks.{name}" for name in declared.networks if name not in networks),
    )


def list_stand_ins(settings: Settings, declared: ParticipantRegistry) -> tuple[str, ...]:
    """Return for which outside parties the sandbox stands in."""
    return _list_unconfigured(settings, declared) if may_stand_in(settings) else ()


def list_gaps(settings: Settings, declared: ParticipantRegistry) -> list[SettingsProblem]:
    """Return everything that is missing of an installation, as far as settings and files tell."""
    missing = () if may_stand_in(settings) else _list_unconfigured(settings, declared)
    return [
        *(SettingsProblem(where, *_NOT_SET) for where in missing),
        *_find_missing_files(settings),
        *_find_tight_limits(settings, declared),
    ]


def _find_missing_files(settings: Settings) -> Iterator[SettingsProblem]:
    """Yield what key files of this host are missing. An embedded installation's own are made with it."""
    if settings.databases is not None and (missing := list_missing(settings.keys)):
        names = ", ".join(f"{name}.key" for name in missing)
        yield SettingsProblem(
            "keys",
            f"{settings.keys} 中没有 {names}:空的安装由 jiebang migrate 生成,已有的安装须从其他主机或备份复制",
            f"{settings.keys} lacks {names}: `jiebang migrate` makes them for an empty installation; those of an "
            f"existing one must be copied from another host or its backup",
        )
    folders = {name: network.keys or settings.keys for name, network in (settings.networks or {}).items()}
    wanted = [(f"networks.{name}", folder / file) for name, folder in folders.items() for file in _link_files(name)]
    wanted += [(_GATEWAY, settings.keys / file) for file in _link_files(GATEWAY) if settings.gateway_url is not None]
    if settings.verifier_url is not None:
        wanted += [(_VERIFIER, settings.keys / file) for file in _link_files(VERIFIER)]
    if settings.issuer is not None and settings.issuer.jwks_file is not None:
        wanted.append(("issuer.jwks_file", settings.issuer.jwks_file))
    for where, path in wanted:
        if not _is_file(path):
            yield SettingsProblem(where, f"没有文件 {path}", f"there is no file {path}")


def _link_files(name: str) -> tuple[str, ...]:
    """Return the key files of our end of a signed link: docs/remote-participants.md."""
    return f"{name}-request.pem", f"{name}-reply.pub.pem"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _find_tight_limits(settings: Settings, declared: ParticipantRegistry) -> Iterator[SettingsProblem]:
    """Yield where the limit on connections leaves a database without any."""
    databases = settings.databases
    servers = placement(declared).values() if databases is None else map(find_server, databases.values())
    server, most = Counter(servers).most_common(1)[0]
    if settings.connections.per_server < most:
        yield SettingsProblem(
            "connections.per_server",
            f"服务器 {server} 上有 {most} 个数据库,至少须为 {most}",
            f"the server {server} holds {most} databases: it must be at least {most}",
        )
