"""Settings: from `JIEBANG_*` variables, then a TOML file, then defaults; read by `app` alone.

The file is named by `JIEBANG_SETTINGS`, else `jiebang.toml` in the current folder, if there is one:

    home = ".jiebang"                      # JIEBANG_HOME
    keys = "/etc/jiebang/keys"             # JIEBANG_KEYS; default: "keys" in the home
    anchor = "/mnt/once/anchor.jsonl"      # JIEBANG_ANCHOR; default: "timeline-anchor.jsonl" in the home
    participants = "participants"          # JIEBANG_PARTICIPANTS: a folder of declarative participants (YAML)
    gateway_url = "https://…"              # JIEBANG_GATEWAY_URL. Once called phone_url
    verifier_url = "https://…"             # JIEBANG_VERIFIER_URL: of the verifier of documents
    cipher = "aes-256-gcm"                 # JIEBANG_CIPHER: or "sm4-gcm"; of names sealed from now on
    sandbox = true                         # JIEBANG_SANDBOX: the sandbox stands in for the gateway, networks and issuer
                                           # that are not configured. Absent: only in the home of a demo
    [databases]                            # JIEBANG_DATABASES: JSON, TOML or a file's path; absent: embedded servers
    platform = "postgresql://…"            # one DSN for each of `embedded.placement`
    [networks.unionpay]                    # JIEBANG_NETWORKS likewise: JSON, TOML or a file's path
    base_url = "https://…"
    [networks.acme.operations.close]       # beside base_url: declares a further remote participant; see configured.py
    effects.points_kept = { type = "int" }
    [issuer]                               # JIEBANG_ISSUER_…
    issuer = "https://…"
    audience = "jiebang"
    jwks_url = "https://…"                 # or jwks_file
    [saga]                                 # JIEBANG_SAGA_TRY_LIMIT=3 …: fields of Timing; times in seconds
    [worker]                               # JIEBANG_WORKER_LEASE=10 …: fields of Pace
    [seals]                                # JIEBANG_SEALS_EVERY=3 …: fields of SealPace
    [tasks]                                # JIEBANG_TASKS_SILENT=120 …: fields of Watchfulness
    [gauges]                               # JIEBANG_GAUGES_EVERY=10 …: fields of GaugePace
    [repeats]                              # JIEBANG_REPEATS_HELD=30 …: fields of Repeats
    [connections]                          # JIEBANG_CONNECTIONS_PER_SERVER=24 …: fields of ConnectionLimits
    [http]                                 # JIEBANG_HTTP_PORT=8700 …
    [capacity]                             # JIEBANG_CAPACITY_PLACES=48 …: fields of Capacity

Paths in the file are relative to the file. All problems are reported together, in one SettingsError.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from jiebang.api.gate.capacity import Capacity
from jiebang.model.decoding import decode_any
from jiebang.model.errors import InvalidInputError, SettingsError
from jiebang.model.participants import Declaration, ParticipantRegistry
from jiebang.participants import PARTICIPANTS
from jiebang.participants.configured import DeclarationFaultError, declare
from jiebang.participants.declarative.load import load_declaration
from jiebang.saga.coordinator import Timing
from jiebang.store.cases.idempotency import RepeatPolicy
from jiebang.store.encryption import SealCipher
from jiebang.store.postgres.embedded import placement
from jiebang.store.postgres.shares import ConnectionLimits
from jiebang.usecases.operations.gauges import GaugePace
from jiebang.usecases.operations.tasks import TaskLimits
from jiebang.usecases.timelines.seal import SealPace
from jiebang.worker import Pace

PREFIX: Final = "JIEBANG_"
FILE: Final = "jiebang.toml"
_TOP_PORT: Final = 65_535
_S = TypeVar("_S", bound=msgspec.Struct)


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one remote participant. `keys`: the folder of the link's key files (remote/link_keys.py)."""

    base_url: str
    keys: Path | None = None
    limit: timedelta = timedelta(seconds=2)


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who issues access tokens, for which audience, and where its keys are: exactly one of URL and file."""

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API listens. Port 0: one that is free.

    `trusted_proxies`: addresses, with commas between, whose X-Forwarded-For says where a request comes from.
    """

    host: str = "127.0.0.1"
    port: int = 8700
    trusted_proxies: str = "127.0.0.1"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an installation. `databases` None: the embedded ones.

    What else is None is not configured: a process refuses to start without it, unless the sandbox may stand in.
    `verifier_url`: of the verifier of documents; without one, no kind that brings an identity can be asked for.
    `sandbox`: whether it may; None: only in the home of a demo. `anchor`: the file outside the databases that holds the
    end of the chain of seals; None: one in the home.
    `sandbox`: whether it may; None: only in the home of a demo. `cipher`: of data keys made from now on. `anchor`: the
    file outside the databases that holds the end of the chain of seals; None: one in the home.
    """

    home: Path
    keys: Path
    anchor: Path | None = None
    databases: Mapping[str, str] | None = None
    networks: Mapping[str, NetworkSettings] | None = None
    gateway_url: str | None = None
    verifier_url: str | None = None
    issuer: IssuerSettings | None = None
    sandbox: bool | None = None
    cipher: SealCipher = SealCipher.AES_256_GCM
    connections: ConnectionLimits = ConnectionLimits()
    saga: Timing = Timing()
    worker: Pace = Pace()
    seals: SealPace = SealPace()
    tasks: TaskLimits = TaskLimits()
    gauges: GaugePace = GaugePace()
    repeats: RepeatPolicy = RepeatPolicy()
    http: HttpSettings = HttpSettings()
    capacity: Capacity = Capacity()
    declared: ParticipantRegistry = PARTICIPANTS
    """The participants of the product and those that the settings declare."""

    def __repr__(self) -> str:
        """Show no passwords."""
        return f"Settings(home={str(self.home)!r}, databases={'outside' if self.databases else 'embedded'})"


class SettingsProblem(msgspec.Struct, frozen=True):
    """One problem: the setting, and what is wrong with it. Never holds a value, which may be a password."""

    where: str
    zh: str
    en: str


_EXPECTED: Final[Mapping[Any, tuple[str, str]]] = {
    int: ("应为正整数", "must be a whole number above 0"),
    timedelta: ("应为大于 0 的秒数", "must be a number of seconds above 0"),
    str: ("应为非空文字", "must be text, not empty"),
    Path: ("应为路径", "must be a path"),
}
_UNKNOWN: Final = ("没有此项设置", "there is no such setting")
_NO_URL: Final = ("应为 http 或 https 地址", "must be an http or https URL")
_NOT_SAFE: Final = (
    "除本机外须为 https 地址:否则途中任何人都可改换内容",
    "must begin with https:// unless it is this machine: anybody on the way could change what it answers",
)
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BOOLEANS: Final[Mapping[object, bool]] = {True: True, False: False, "true": True, "false": False}
_URLS: Final = ("gateway_url", "phone_url")
"""The address of the gateway, under its present and its former name."""
_ADDRESSES: Final = (*_URLS, "verifier_url")
_PLAIN: Final = ("home", "keys", "anchor", "participants", "sandbox", "cipher", *_ADDRESSES)
_SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "saga": Timing,
    "worker": Pace,
    "seals": SealPace,
    "tasks": TaskLimits,
    "gauges": GaugePace,
    "repeats": RepeatPolicy,
    "connections": ConnectionLimits,
    "http": HttpSettings,
    "capacity": Capacity,
    "issuer": IssuerSettings,
}
_MAPPINGS: Final = ("databases", "networks")


def read_settings(environ: Mapping[str, str], folder: Path, declared: ParticipantRegistry = PARTICIPANTS) -> Settings:
    """Read the settings of an installation of the participants `declared`. Raises SettingsError.

    `folder` is what relative paths of `environ` start from.
    """
    reader = _SettingsReader(folder, declared)
    settings = reader.settings(environ)
    if reader.problems or settings is None:
        raise SettingsError(problems=tuple(reader.problems))
    return settings


class _SettingsReader:
    """Reads every setting and collects the problems. Relative paths start from `folder`."""

    def __init__(self, folder: Path, declared: ParticipantRegistry) -> None:
        self.declared = declared
        self.folder = folder
        self.problems: list[SettingsProblem] = []

    def add_problem(self, where: str, what: tuple[str, str]) -> None:
        self.problems.append(SettingsProblem(where, *what))

    def settings(self, environ: Mapping[str, str]) -> Settings | None:
        raw = self._merge(environ)
        sandbox = self._read_boolean("sandbox", raw.pop("sandbox")) if "sandbox" in raw else None
        cipher = self._read_cipher(raw.pop("cipher")) if "cipher" in raw else SealCipher.AES_256_GCM
        plain = {name: self._read_plain(name, raw.pop(name)) for name in _PLAIN if name in raw}
        sections: dict[str, Any] = {
            name: self._read_section(name, kind, raw.pop(name)) for name, kind in _SECTIONS.items() if name in raw
        }
        if plain.get("participants"):
            self._read_participants(Path(plain["participants"] or ""))
        databases = self._read_databases(raw.pop("databases")) if "databases" in raw else None
        declared = self._read_declarations(raw.get("networks"))
        networks = self._read_networks(raw.pop("networks"), declared) if "networks" in raw else None
        for name in raw:
            self.add_problem(name, _UNKNOWN)
        if plain.keys() >= set(_URLS):
            self.add_problem(
                "phone_url", ("即 gateway_url 的旧名,请只保留其一", "is the old name of gateway_url: keep one")
            )
        if self.problems:
            return None
        home = Path(plain.get("home") or self.folder / ".jiebang")
        gateway_url = next((plain[name] for name in _URLS if name in plain), None)
        anchor = plain.get("anchor")
        return Settings(
            home=home,
            keys=Path(plain.get("keys") or home / "keys"),
            anchor=None if anchor is None else Path(anchor),
            gateway_url=gateway_url,
            verifier_url=plain.get("verifier_url"),
            databases=databases,
            networks=networks,
            declared=declared,
            sandbox=sandbox,
            cipher=cipher,
            **{name: value for name, value in sections.items() if value is not None},
        )

    def _merge(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """The file's values, overridden by the environment's; paths made absolute, sections as mappings."""
        named = environ.get(f"{PREFIX}SETTINGS")
        path = self.folder / (named or FILE)
        raw = self._read_file(path, f"{PREFIX}SETTINGS") if named or path.is_file() else {}
        for table, key in self._find_paths(raw):
            table[key] = str(path.parent / table[key])
        for variable, value in sorted(environ.items()):
            if variable.startswith(PREFIX) and variable != f"{PREFIX}SETTINGS":
                self._apply_variable(variable, value, raw)
        return raw

    @staticmethod
    def _find_paths(raw: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield where the raw values hold paths: the mapping and the key in it."""
        issuer, networks = raw.get("issuer"), raw.get("networks")
        tables = [(raw, ("home", "keys", "anchor", "participants")), (issuer, ("jwks_file",))]
        tables += [(network, ("keys",)) for network in networks.values()] if isinstance(networks, dict) else []
        for table, names in tables:
            if isinstance(table, dict):
                yield from ((table, name) for name in names if isinstance(table.get(name), str))

    def _apply_variable(self, variable: str, value: str, raw: dict[str, Any]) -> None:
        name = variable.removeprefix(PREFIX).lower()
        section, _, field = name.partition("_")
        if name in ("home", "keys", "anchor", "participants"):
            raw[name] = str(self.folder / value) if value else ""
        elif name in _PLAIN:
            raw[name] = value
        elif name in _MAPPINGS:
            raw[name] = self._read_mapping(variable, value, name)
        elif section in _SECTIONS and field in _SECTIONS[section].__struct_fields__:
            into = raw.setdefault(section, {})
            if isinstance(into, dict):
                into[field] = str(self.folder / value) if field == "jwks_file" else value
        else:
            self.add_problem(variable, _UNKNOWN)

    def _read_mapping(self, variable: str, value: str, name: str) -> dict[str, Any]:
        """Read JSON, TOML, or the file of either that `value` names; a file may hold the mapping under its name."""
        is_json = value.lstrip().startswith("{")
        if is_json or "=" in value.split("://", maxsplit=1)[0]:
            found, base = self._decode(value.encode(), variable, json=is_json), self.folder
        else:
            path = self.folder / value
            found, base = self._read_file(path, variable), path.parent
        inner = found.get(name)
        found = inner if isinstance(inner, dict) else found
        for table, key in self._find_paths({name: found}):
            table[key] = str(base / table[key])
        return found

    def _read_file(self, path: Path, where: str) -> dict[str, Any]:
        try:
            content = path.read_bytes()
        except (OSError, ValueError):
            # Not which file: what was given for its name may hold a password.
            self.add_problem(where, ("所指的文件无法读取", "names a file that cannot be read"))
            return {}
        return self._decode(content, f"{where} ({path.name})", json=path.suffix == ".json")

    def _decode(self, content: bytes, where: str, *, json: bool) -> dict[str, Any]:
        form = "JSON" if json else "TOML"
        try:
            found = decode_any(content) if json else tomllib.loads(content.decode())
        except (InvalidInputError, ValueError, RecursionError):  # its message may quote a password
            found = None
        if not isinstance(found, dict):
            self.add_problem(where, (f"不是有效的 {form} 对象", f"is not a valid {form} object"))
            return {}
        return found

    def _read_boolean(self, name: str, value: object) -> bool | None:
        found = _BOOLEANS.get(value.lower() if isinstance(value, str) else value) if _is_scalar(value) else None
        if found is None:
            self.add_problem(name, ("应为 true 或 false", "must be true or false"))
        return found

    def _read_cipher(self, value: object) -> SealCipher:
        if value not in list(SealCipher):
            known = ", ".join(SealCipher)
            self.add_problem("cipher", (f"应为以下之一:{known}", f"must be one of {known}"))
            return SealCipher.AES_256_GCM
        return SealCipher(str(value))

    def _read_plain(self, name: str, value: object) -> str | None:
        if not isinstance(value, str) or not value:
            self.add_problem(name, _EXPECTED[str if name in _ADDRESSES else Path])
            return None
        if name in _ADDRESSES:
            self._check_url(name, value)
        return value

    def _check_url(self, where: str, value: object) -> None:
        """Report what is no URL, and one whose answers anybody on the way could change."""
        if not _is_url(value):
            self.add_problem(where, _NO_URL)
        elif urlsplit(str(value)).scheme == "http" and urlsplit(str(value)).hostname not in _THIS_MACHINE:
            self.add_problem(where, _NOT_SAFE)

    def _read_section(self, where: str, kind: type[_S], raw: object) -> _S | None:
        """Build a section field by field, so that every problem is reported."""
        if not isinstance(raw, dict):
            self.add_problem(where, ("应为一组设置", "must be a table of settings"))
            return None
        before, given = len(self.problems), {}
        for field in msgspec.structs.fields(kind):
            if field.name in raw:
                given[field.name] = self._read_field(f"{where}.{field.name}", field.type, raw[field.name])
            elif field.required:
                self.add_problem(f"{where}.{field.name}", ("缺少此项", "is missing"))
        for name in raw.keys() - set(kind.__struct_fields__):
            self.add_problem(f"{where}.{name}", _UNKNOWN)
        if kind is IssuerSettings and (given.get("jwks_url") is None) == (given.get("jwks_file") is None):
            self.add_problem(
                where, ("jwks_url 与 jwks_file 须且只能设一个", "needs exactly one of jwks_url and jwks_file")
            )
        return kind(**given) if len(self.problems) == before else None

    def _read_field(self, where: str, kind: Any, value: object) -> Any:
        base = next((one for one in (timedelta, int, Path) if kind == one or kind == one | None), str)
        try:
            # Numbers come as text from the environment; a number of seconds is a duration.
            found: Any = msgspec.convert(
                value, float if base is timedelta else str if base is Path else base, strict=False
            )
            found = timedelta(seconds=found) if base is timedelta else Path(found) if base is Path else found
        except (msgspec.ValidationError, OverflowError, ValueError):
            self.add_problem(where, _EXPECTED[base])
            return None
        if where == "http.port":
            if not 0 <= found <= _TOP_PORT:
                self.add_problem(where, (f"应为 0 至 {_TOP_PORT}", f"must be 0 to {_TOP_PORT}"))
        elif (base is int and found <= 0) or (base is timedelta and found <= timedelta()) or found in ("", Path()):
            self.add_problem(where, _EXPECTED[base])
        elif where.endswith("_url"):
            self._check_url(where, found)
        return found

    def _check_names(
        self, where: str, raw: object, expected: frozenset[str], told: Collection[str] = ()
    ) -> dict[str, Any]:
        """Report missing and unknown names, but for those `told`; return the values of the known ones."""
        if not isinstance(raw, dict):
            self.add_problem(where, ("应为名称到地址的对应", "must map names to addresses"))
            return {}
        for name in sorted(expected - raw.keys()):
            self.add_problem(f"{where}.{name}", ("缺少此项", "is missing"))
        for name in sorted(raw.keys() - expected - set(told)):
            self.add_problem(f"{where}.{name}", ("没有此名称", "is not a name we know"))
        return {name: raw[name] for name in sorted(expected & raw.keys())}

    def _read_databases(self, raw: object) -> dict[str, str]:
        found = self._check_names("databases", raw, frozenset(placement(self.declared)))
        seen: dict[tuple[str, object], str] = {}
        for name, dsn in found.items():
            if not _is_dsn(dsn):
                form = "postgresql://user@host:port/database"
                self.add_problem(f"databases.{name}", (f"应为 {form} 形式的地址", f"must look like {form}"))
            elif (twin := seen.setdefault((self.declared.owner_of(name), dsn), name)) != name:
                what = (f"与 {twin} 是同一个数据库", f"is the same database as {twin}")
                self.add_problem(f"databases.{name}", what)
        return found

    def _read_participants(self, folder: Path) -> None:
        """Declare the participants that the YAML files of a folder describe."""
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
            texts = [(path.name, path.read_text("utf-8-sig")) for path in files]
        except (OSError, ValueError):
            self.add_problem(
                "participants", ("目录或其中的文件无法读取", "the folder, or a file in it, cannot be read")
            )
            return
        for file, text in texts:
            known = self.declared
            added, problems = load_declaration(text, file, (*known.names, *known.owned), known.facts)
            for each in problems:
                self.add_problem(f"participants {each.file}:{each.line}:{each.column}", (each.zh, each.en))
            if added is not None:
                self.declared = ParticipantRegistry((*known.declarations, added))

    def _read_declarations(self, raw: object) -> ParticipantRegistry:
        """The participants declared for us, and those that the tables of networks declare."""
        added = list[Declaration]()
        for name, value in raw.items() if isinstance(raw, dict) else ():
            if name in self.declared.networks:
                continue
            try:
                operations = value.get("operations") if isinstance(value, dict) else None
                added.append(declare(name, operations, (*self.declared.names, *self.declared.owned)))
            except DeclarationFaultError as fault:
                self.add_problem(
                    ".".join(filter(None, ("networks", name, fault.place))), (fault.what.zh, fault.what.en)
                )
        return ParticipantRegistry((*self.declared.declarations, *added)) if added else self.declared

    def _read_networks(self, raw: object, declared: ParticipantRegistry) -> dict[str, NetworkSettings]:
        ours, tables = frozenset(self.declared.networks), raw if isinstance(raw, dict) else {}
        added = frozenset(declared.networks) - ours
        # The product's own are named together or not at all: a sandbox stands in for all or for none of them.
        expected = added | ours if ours & tables.keys() or not tables else added
        found: dict[str, NetworkSettings] = {}
        for name, value in self._check_names("networks", raw, expected, told=tables.keys() - ours).items():
            given = {key: one for key, one in value.items() if key != "operations"} if name in added else value
            network = self._read_section(f"networks.{name}", NetworkSettings, given)
            if network is not None:
                found[name] = network
        return found


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool)


def _is_url(value: object) -> bool:
    try:
        parts = urlsplit(str(value))
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_dsn(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return (
            parts is not None
            and parts.scheme in ("postgresql", "postgres")
            and len(parts.path) > 1
            and (bool(parts.hostname) or "host=" in parts.query)
            and parts.port != 0
        )
    except ValueError:
        return False


def read_environment() -> Settings:
    """Read the settings of this process. Raises SettingsError."""
    return read_settings(os.environ, Path.cwd())
