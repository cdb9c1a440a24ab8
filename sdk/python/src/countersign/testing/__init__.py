"""An authority for tests: a real server on this machine that answers as Countersign does, with keys of its own.

    with FakeAuthority() as authority:
        authority.allow("document.read", resource="document:reports/*")
        authority.require_approval("payments.authorize")
        client = Client(url=authority.url, credential=authority.credential, ...)

It is for the tests of whoever uses this package. It decides far less than the real one, and protects nothing.
"""

from .authority import FakeAuthority

__all__ = ["FakeAuthority"]
