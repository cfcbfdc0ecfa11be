"""The format of a population file (docs/population-format.md): one JSON object a person, one list of rows a table.

A row's fields stand in the order of its table's columns, without account_id, epoch and what the platform keeps for
itself, so that a decoded row is the tuple that COPY writes. Ids of rows are numbers that need be unique only within the
person and the list. Fields with a default may be left out by whoever writes a file by hand.
"""

from jiebang.sandbox.population.format.business import (
    ApiCredentialRecord,
    ApprovalRecord,
    EnterpriseRecord,
    MembershipRecord,
    MerchantNumberRecord,
    MerchantRecord,
    RetainedRecord,
)
from jiebang.sandbox.population.format.fields import MAX_ID
from jiebang.sandbox.population.format.gaming import AccessRecord, GamingRecord, PlaySessionRecord
from jiebang.sandbox.population.format.identity import ChangeRecord, IdentityRecord
from jiebang.sandbox.population.format.openplatform import (
    AppRecord,
    GrantRecord,
    MiniProgramRecord,
    OfficialAccountRecord,
    OpenPlatformRecord,
    QuotaRecord,
    ReviewRecord,
    TokenRecord,
)
from jiebang.sandbox.population.format.person import NetworkBindingRecord, Person
from jiebang.sandbox.population.format.security import (
    DeviceRecord,
    HoldRecord,
    LoginRecord,
    SecondFactorRecord,
    SecurityRecord,
)
from jiebang.sandbox.population.format.social import (
    ContactRecord,
    FriendRequestRecord,
    GroupRecord,
    MemberRecord,
    MessageRecord,
    MomentRecord,
    SocialRecord,
)
from jiebang.sandbox.population.format.wallet import (
    ArrearsRecord,
    BankCardRecord,
    ContractRecord,
    CreditProductRecord,
    EntryRecord,
    FreezeRecord,
    RedPacketRecord,
    WalletRecord,
)

__all__ = [
    "MAX_ID",
    "AccessRecord",
    "ApiCredentialRecord",
    "AppRecord",
    "ApprovalRecord",
    "ArrearsRecord",
    "BankCardRecord",
    "ChangeRecord",
    "ContactRecord",
    "ContractRecord",
    "CreditProductRecord",
    "DeviceRecord",
    "EnterpriseRecord",
    "EntryRecord",
    "FreezeRecord",
    "FriendRequestRecord",
    "GamingRecord",
    "GrantRecord",
    "GroupRecord",
    "HoldRecord",
    "IdentityRecord",
    "LoginRecord",
    "MemberRecord",
    "MembershipRecord",
    "MerchantNumberRecord",
    "MerchantRecord",
    "MessageRecord",
    "MiniProgramRecord",
    "MomentRecord",
    "NetworkBindingRecord",
    "OfficialAccountRecord",
    "OpenPlatformRecord",
    "Person",
    "PlaySessionRecord",
    "QuotaRecord",
    "RedPacketRecord",
    "RetainedRecord",
    "ReviewRecord",
    "SecondFactorRecord",
    "SecurityRecord",
    "SocialRecord",
    "TokenRecord",
    "WalletRecord",
]
