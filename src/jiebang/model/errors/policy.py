"""Errors of policy packs, their versions, codes and decision records."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors.base import CallerError, OurFaultError, PolicyRefusalError


class UnknownCodeError(CallerError):
    """No blocker, consequence, reason, error or older system's code is called so. fields: asked, near."""

    code = "UNKNOWN-CODE"
    title = Text("没有这个代码", "There is no such code")
    action = Text("请核对代码；near 列出了相近的代码。", "Check the code; `near` lists codes that are like it.")


class PackInvalidError(CallerError):
    """A policy pack does not load. fields: problems, all of them at once: [{file, line, column, zh, en}]."""

    code = "PACK-INVALID"
    title = Text("策略包有误，未加载", "The policy pack is not valid and was not loaded")
    action = Text(
        "请按 problems 中的行列逐项修正；现行策略包不受影响。",
        "Correct each of `problems` at its line and column; the pack in force is untouched.",
    )


class UnknownPackError(CallerError):
    """No such version of a policy. fields: pack, known (the versions there are)."""

    code = "PACK-UNKNOWN"
    title = Text("没有这个版本的策略包", "There is no such version of a policy")
    action = Text(
        "请改用 known 中的版本,或先用 jiebang policy add 加入。",
        "Choose one of `known`, or add the version first: jiebang policy add FILE.",
    )


class PackExistsError(CallerError):
    """Another text was admitted under this name and version before. fields: pack, added_by, added_at."""

    code = "PACK-EXISTS"
    title = Text("该版本已存在且内容不同", "This version exists, with another text")
    action = Text(
        "版本一经加入即不可更改:请提高 version 后重新加入。",
        "A version never changes once it was added: raise `version` and add it again.",
    )


class NameUnusableError(CallerError):
    """The name of who acts on policy is empty, too long, or holds what is no text. fields: name."""

    code = "NAME-UNUSABLE"
    title = Text("姓名不可用", "The name cannot be used")
    action = Text("请用 --by 写明本人姓名,1 至 64 字。", "Say who you are with --by, in 1 to 64 characters.")


class SamePersonError(PolicyRefusalError):
    """It needs the agreement of two different people, whose names do not look alike. fields: pack, proposed_by."""

    code = "SAME-PERSON"
    title = Text("须由另一人批准", "Somebody else must approve it")
    action = Text(
        "此事由您(或姓名形近者)提出;请另一位同事以自己的姓名批准。",
        "You, or somebody whose name looks like yours, proposed it; a colleague must approve it with their own name.",
    )


class AlreadyInForceError(PolicyRefusalError):
    """The version is in force, or in shadow, as it is. fields: pack."""

    code = "ALREADY-IN-FORCE"
    title = Text("该版本已生效", "This version is in force already")
    action = Text("无需操作。", "There is nothing to do.")


class NothingToRollBackError(PolicyRefusalError):
    """No version was in force before this one. fields: pack."""

    code = "NOTHING-TO-ROLL-BACK"
    title = Text("没有更早的版本可以退回", "There is no earlier version to go back to")
    action = Text("请改为启用另一个版本。", "Activate another version instead.")


class DeclarationsInvalidError(CallerError):
    """A handler's file of declarations is wrong. fields: problems, all at once: [{file, line, column, zh, en}]."""

    code = "DECLARATIONS-INVALID"
    title = Text("申明文件有误", "The file of declarations is wrong")
    action = Text("请逐项修正 problems。", "Correct each of `problems`.")


class UnknownCorrectionError(CallerError):
    """No correction of this number waits for approval. fields: number."""

    code = "CORRECTION-UNKNOWN"
    title = Text("没有待批准的该更正", "No such correction waits for approval")
    action = Text("请查看 jiebang cases corrections。", "See `jiebang cases corrections`.")


class CorrectionNeedlessError(PolicyRefusalError):
    """No case is kept from its end by this effect. fields: pack, kind, participant, waiting (cases that wait there)."""

    code = "CORRECTION-NEEDLESS"
    title = Text("没有申请因此效果而无法完成", "No case is kept from its end by this effect")
    action = Text(
        "更正只用于参与方无法执行的效果:请查看 jiebang cases confirming。要改变策略,请加入新的版本。",
        "Only what a participant cannot apply can be set right: see `jiebang cases confirming`. To change policy, add "
        "another version.",
    )


class NoRecordError(CallerError):
    """The case has no decision record: it was opened before records were kept. fields: case."""

    code = "NO-RECORD"
    title = Text("该申请没有检查记录", "No check is recorded for this case")
    action = Text("请核对申请编号。", "Check the case number.")


class RecordUnreadableError(OurFaultError):
    """A decision record cannot be opened or read. fields: step, at."""

    code = "RECORD-UNREADABLE"
    title = Text("检查记录无法打开", "A decision record cannot be opened")
    action = Text(
        "请核对本机的 records.key 与写入时一致;若一致,则该记录曾被改动,请告知安全负责人。",
        "See that records.key is the one it was sealed with; if it is, the record was changed: tell who answers for "
        "security.",
    )
