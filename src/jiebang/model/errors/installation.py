"""Errors of an installation: its home, databases, processes, settings and ports."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors.base import CallerError, OtherSystemError, OurFaultError


class WorkersBusyError(OtherSystemError):
    """Workers did not come to a stop in time. fields: workers."""

    code = "WORKERS-BUSY"
    title = Text("仍有工作进程在处理申请", "Workers are still driving cases")
    action = Text(
        "请查看 workers 所列进程(jiebang workers),必要时停止它们,再重新执行。申请的领取保持停止。",
        "Look at the processes in `workers` (jiebang workers), stop them if need be, and run this again. Claims stay "
        "stopped meanwhile.",
    )


class HomeUnusableError(CallerError):
    """The home folder cannot hold or run the embedded databases. fields: path, reason."""

    code = "HOME-UNUSABLE"
    title = Text("数据目录不可用", "The home folder cannot be used")
    action = Text(
        "请按 reason 处理 path,或用 JIEBANG_HOME 另选一个可写的目录。",
        "Mend `path` as `reason` says, or choose another writable folder with JIEBANG_HOME.",
    )


class DiskFullError(CallerError):
    """No space is left where the embedded databases lie. fields: path."""

    code = "DISK-FULL"
    title = Text("磁盘空间不足", "The disk is full")
    action = Text(
        "请在 path 所在磁盘释放空间后重试。已提交的数据未丢失。",
        "Free space on the disk that holds `path`, then start again. Nothing committed was lost.",
    )


class DatabaseDamagedError(CallerError):
    """The files of an embedded server are damaged or of another version. fields: server, path, log, reason."""

    code = "DATABASE-DAMAGED"
    title = Text("内置数据库的文件已损坏或版本不符", "The embedded database's files are damaged or of another version")
    action = Text(
        "请从备份恢复 path;若其中只有演示数据,可将 path 移走后重新开始。详情见 log。",
        "Restore `path` from a backup; if it holds only demo data, move it away and start afresh. `log` tells more.",
    )


class DatabaseStartError(OurFaultError):
    """An embedded server did not start. fields: server, log, reason (the log's last lines)."""

    code = "DATABASE-START"
    title = Text("内置数据库未能启动", "An embedded database did not start")
    action = Text("请按 reason 与 log 处理后重试。", "See `reason` and `log`, then start again.")


class MigrationRefusedError(OurFaultError):
    """A database does not fit this version's migrations. fields: owner, version, name, reason."""

    code = "MIGRATION-REFUSED"
    title = Text("数据库迁移被拒绝", "The database cannot be migrated")
    action = Text(
        "请使用与数据库一致的解绑版本;已应用的迁移文件不可改动,请改为新增迁移。未作任何更改。",
        "Use the version of jiebang that fits the database; never change a migration once applied, add another. "
        "Nothing was changed.",
    )


class NotMigratedError(CallerError):
    """A database lacks tables or columns of this version. fields: databases."""

    code = "NOT-MIGRATED"
    title = Text("数据库尚未升级到本版本的结构", "A database has not been migrated to this version")
    action = Text(
        "请先运行 jiebang migrate,再重新启动。未作任何更改。",
        "Run `jiebang migrate`, then start again. Nothing was changed.",
    )


class ProcessStartError(OurFaultError):
    """A process that we run beside ours did not start. fields: process, log."""

    code = "PROCESS-START"
    title = Text("所需的进程未能启动", "A process that this needs did not start")
    action = Text("原因见 log;处理后重试。", "`log` tells why; mend it, then try again.")


class SettingsError(CallerError):
    """The settings are wrong. fields: problems, all of them at once: [{where, zh, en}]."""

    code = "SETTINGS-INVALID"
    title = Text("配置有误", "The settings are wrong")
    action = Text("请逐项修正 problems 后重新启动。", "Correct each of `problems`, then start again.")


class PortTakenError(CallerError):
    """The address cannot be listened on. fields: host, port."""

    code = "PORT-TAKEN"
    title = Text("无法监听该地址", "Cannot listen on this address")
    action = Text("请改用其他端口(--port),或停掉占用它的程序。", "Choose another port (--port), or stop what uses it.")
