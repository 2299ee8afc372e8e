"""The canonical names that may occur in what is read, by whose bytes they are.

Found by recording what the whole product sends, stores and answers, and then judged one by one: no
name here loads code, opens a file or a connection, or holds a class that is called later.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Names of values that may be rebuilt, and of classes that may be referred to only.

    Attributes:
        objects: how many values and fields one message may have; reading one takes microseconds,
            during which nobody else is served.
    """

    values: frozenset[str]
    kinds: frozenset[str] = frozenset()
    objects: int = 10_000

    def __or__(self, other: "Names") -> "Names":
        return Names(
            self.values | other.values,
            self.kinds | other.kinds,
            max(self.objects, other.objects),
        )


PLAIN = Names(
    frozenset(
        {
            "NoneType", "bool", "bytes", "dict", "float", "int", "list", "str", "tuple",
            "numpy_ndarray", "UID", "LineageID", "SyftAPICall", "SyftVerifyKey", "nacl_verify_key",
        }
    )
)  # fmt: skip
"""A call of anyone below owner: plain values, ids, keys and numeric arrays."""

OWNER = PLAIN | Names(frozenset({"ServiceRole", "pydantic_emailstr"}))
"""An owner's call: roles and addresses of accounts besides."""

_SIGNATURES = Names(
    frozenset(
        {
            "SyftAPI", "APIEndpoint", "inspect_Signature", "inspect_Parameter",
            "inspect_ParameterKind", "inspect_empty", "Any", "Any_typing._AnyMeta",
            "Any_typing._SpecialForm", "Union", "UnionType", "_GenericAlias",
            "_UnionGenericAlias", "_SpecialForm", "_SpecialGenericAlias", "GenericAlias", "type",
            "ABCMeta", "EnumMeta", "EnumMeta_enum.EnumMeta", "EnumMeta_enum.EnumType",
            "pydantic_model_metaclass", "partial_model_metaclass", "empty_type", "dicttuple_meta",
            "CRUDReminder",
        }
    ),
    frozenset(
        {
            "inspect_empty", "str", "int", "float", "bool", "bytes", "NoneType", "UID", "LineageID",
            "list", "dict", "tuple", "set", "numpy_ndarray", "dicttuple", "DatasetPageView",
            "UserView", "UserViewPage", "empty_type", "Empty", "SyftObject", "ServerMetadata",
            "Request", "RequestInfo", "pandas_dataframe", "SyftVerifyKey", "pydantic_emailstr",
            "SyftSuccess", "ServiceRole", "SyftSigningKey", "ServerSettings", "Notification",
            "Dataset", "RequestService", "NotificationStatus", "ActionObject", "TwinObject",
            "TwinMode",
        }
    ),
)  # fmt: skip
"""The list of methods that a node answers, with their signatures."""

ANSWERS = (
    OWNER
    | _SIGNATURES
    | Names(
        frozenset(
            {
                "SignedSyftAPICall", "SyftAPIData", "SyftSuccess", "SyftError", "SyftInfo",
                "SyftWarning", "UserPrivateKey", "SyftSigningKey", "nacl_signing_key", "UserView",
                "UserViewPage", "ServerMetadata", "ServerMetadataJSON", "ServerSettings",
                "PwdTokenResetConfig", "DateTime", "set", "NOTIFIERS", "HTMLObject", "Request",
                "RequestInfo", "RequestStatus", "ChangeStatus", "CoteriePlanChange",
                "Notification", "NotificationStatus", "LinkedObject", "Dataset", "Asset",
                "DatasetPageView", "Contributor", "MarkdownDescription", "TwinMode", "dicttuple",
                "pandas_dataframe", "PandasDataframeObject", "ServerType", "ServerSideType",
            }
        ),
        objects=400_000,
    )
)  # fmt: skip
"""What a node answers to a client, and a client reads."""

STORED = ANSWERS | Names(
    frozenset({"bytes_io", "TwinObject", "CreateAsset", "CreateDataset", "ActionObject"}),
    frozenset(
        {"NotificationService", "RequestEmailTemplate", "RequestUpdateEmailTemplate",
         "EmailNotifier", "DatasetService"}
    ),
)  # fmt: skip
"""What a node reads of its own database, and of the calls it makes to itself when it starts."""
