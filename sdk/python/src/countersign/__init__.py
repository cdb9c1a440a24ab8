"""Countersign: identity, capabilities and a person's approval for AI agents.

    from countersign import Client, Operation

    with Client() as client:
        token = client.token(scope="document.read")

Frameworks are guarded by `countersign.guard`; resource servers verify tokens by `countersign.verifier`; `countersign.testing` has an
authority for tests.
"""

from .approvals import ApprovalRequest
from .client import AsyncClient, Client
from .credentials import Credential, PrivateKey, Sidecar, TokenFile
from .errors import (
    AccessDenied,
    AlreadyCompleted,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalPending,
    ApprovalUsed,
    ConfigurationError,
    Conflict,
    CountersignError,
    CredentialInvalid,
    CredentialNotFound,
    DeadlineExceeded,
    InsufficientScope,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotFound,
    RateLimited,
    Refused,
    RevocationUnknown,
    TokenExpired,
    TokenRejected,
    TokenRevoked,
    Unauthenticated,
    Unavailable,
)
from .guard import Denied, Guard, Pending, Permit, Tool, current_permit
from .operation import Answer, Decision, Operation, Reason
from .registry import AsyncRegistry, RegisteredAgent, Registry
from .tokens import AccessToken

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AccessToken",
    "AlreadyCompleted",
    "Answer",
    "ApprovalDenied",
    "ApprovalExpired",
    "ApprovalPending",
    "ApprovalRequest",
    "ApprovalUsed",
    "AsyncClient",
    "AsyncRegistry",
    "Client",
    "ConfigurationError",
    "Conflict",
    "CountersignError",
    "Credential",
    "CredentialInvalid",
    "CredentialNotFound",
    "DeadlineExceeded",
    "Decision",
    "Denied",
    "Guard",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "NotFound",
    "Operation",
    "Pending",
    "Permit",
    "PrivateKey",
    "RateLimited",
    "Reason",
    "Refused",
    "RegisteredAgent",
    "Registry",
    "RevocationUnknown",
    "Sidecar",
    "TokenExpired",
    "TokenFile",
    "TokenRejected",
    "TokenRevoked",
    "Tool",
    "Unauthenticated",
    "Unavailable",
    "current_permit",
]
