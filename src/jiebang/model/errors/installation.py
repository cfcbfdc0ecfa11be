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


class SharedMemoryFullError(CallerError):
    """The system gives the embedded databases too little shared memory. fields: path (where it lies), server."""

    code = "SHARED-MEMORY-FULL"
    title = Text("共享内存空间不足", "There is too little shared memory")
    action = Text(
        "磁盘并未满:请扩大 path(容器可用 --shm-size=256m),或释放其中空间后重试。已提交的数据未丢失。",
        "The disk is not full: make `path` larger (for a container, --shm-size=256m) or free space in it, then start "
        "again. Nothing committed was lost.",
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


class NotInstalledError(CallerError):
    """Nothing is installed here, and this command makes no installation. fields: home."""

    code = "NOT-INSTALLED"
    title = Text("此处还没有安装", "Nothing is installed here")
    action = Text(
        "想先看看,请运行 jiebang demo;要建立安装,请写好配置后运行 jiebang migrate;若安装在别处,请用 JIEBANG_HOME 或 "
        "JIEBANG_DATABASES 指明。未作任何更改。",
        "To see what it does, run `jiebang demo`; to install, write the settings and run `jiebang migrate`; if it is "
        "elsewhere, name it with JIEBANG_HOME or JIEBANG_DATABASES. Nothing was changed.",
    )


class InstallationIncompleteError(CallerError):
    """Parts of the installation are not configured, or not usable. fields: problems, all at once: [{where, zh, en}]."""

    code = "INSTALLATION-INCOMPLETE"
    title = Text("安装不完整,未启动", "The installation is not complete: nothing was started")
    action = Text(
        "请逐项补齐 problems;jiebang config check 事先即可列出。只想试用时,在配置中写 sandbox = true"
        "(JIEBANG_SANDBOX=true),由沙箱代替未配置的外部系统。",
        "Supply each of `problems`; `jiebang config check` lists them beforehand. Only to try it out, write "
        "`sandbox = true` in the settings (JIEBANG_SANDBOX=true): the sandbox then stands in for outside parties.",
    )


class KeysMissingError(CallerError):
    """Key files of an existing installation are not on this host. fields: path, keys."""

    code = "KEYS-MISSING"
    title = Text("本机没有此安装的密钥文件", "This host lacks key files of the installation")
    action = Text(
        "请把安装其他主机(或备份)上的密钥目录复制到 path。密钥只为空的安装生成,由 jiebang migrate 完成:"
        "另造的密钥打不开已有的数据。未作任何更改。",
        "Copy the folder of keys from another host of the installation, or from its backup, to `path`. Keys are made "
        "for an empty installation only, by `jiebang migrate`: others would open nothing. Nothing was changed.",
    )


class KeysDifferError(CallerError):
    """This host's keys are not those of the installation. fields: path, keys."""

    code = "KEYS-DIFFER"
    title = Text("本机的密钥与此安装的不同", "This host has other keys than the installation")
    action = Text(
        "请用安装其他主机(或备份)上的密钥文件替换 path 中 keys 所列的文件,再重新启动。"
        "以不同的密钥运行,正确的密码会被判为错误。未作任何更改。",
        "Replace the files named in `keys` under `path` by those of another host of the installation, or of its "
        "backup, then start again. With other keys right passwords would count as wrong. Nothing was changed.",
    )


class RotationUnfinishedError(CallerError):
    """The key that was replaced still opens something: it must not go. fields: key."""

    code = "ROTATION-UNFINISHED"
    title = Text("仍有数据密钥由旧密钥包裹", "Data keys are still wrapped by the old key")
    action = Text(
        "先不带 --finish 再执行一次。若仍如此:有主机仍在用旧密钥,或有数据密钥打不开。",
        "Run it again without --finish. If it stays so, a host still uses the old key, or some data keys do not open.",
    )


class KeysUnrecordedError(CallerError):
    """The platform's database has no fingerprint of a key yet. fields: keys."""

    code = "KEYS-UNRECORDED"
    title = Text("平台数据库中尚无密钥指纹", "The platform's database has no fingerprint of the keys yet")
    action = Text(
        "请在持有此安装密钥的主机上运行 jiebang migrate,再重新启动。",
        "Run `jiebang migrate` on a host that has the installation's keys, then start again.",
    )


class PoolerInTheWayError(CallerError):
    """Something between us and a database breaks sessions. fields: databases, reason."""

    code = "POOLER-IN-THE-WAY"
    title = Text("与数据库之间的连接池不能保持会话", "A pooler between us and a database does not keep sessions")
    action = Text(
        "请让 databases 所列的地址直连 PostgreSQL,或使用会话模式(session)的连接池,并按 docs/operations.md"
        "“连接池、故障切换与托管 PostgreSQL”设置参数。未作任何更改。",
        "Point the addresses of `databases` at PostgreSQL itself, or at a pooler in session mode set up as "
        'docs/operations.md says under "Poolers, failover, managed PostgreSQL". Nothing was changed.',
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


class WrongUsageError(CallerError):
    """A command was typed in a way that it does not have. fields: reason, as the command line's parser says it."""

    code = "WRONG-USAGE"
    title = Text("命令用法有误", "The command is not used this way")
    action = Text("在命令后加 --help 可查看用法。", "Add --help to the command to see how it is used.")


class PortTakenError(CallerError):
    """The address cannot be listened on. fields: host, port."""

    code = "PORT-TAKEN"
    title = Text("无法监听该地址", "Cannot listen on this address")
    action = Text("请改用其他端口(--port),或停掉占用它的程序。", "Choose another port (--port), or stop what uses it.")
