"""Hides credentials in whatever is shown, logged or stored: those of URIs, in front of the host and in the query."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

# `user:password@` or `key@` in front of a host; or else a raw secret with a slash in it, whose colon is not that of a
# port. The limits of length keep hostile texts from taking quadratic time.
_USER = re.compile(
    r"""(?<=://)(?:[^/\s"<>]{1,500}@
                |[^/\s"<>@:]{0,200}:(?!\d*(?:[/?\#\s]|$))[^\s"<>@]{0,500}@)
    """,
    re.VERBOSE,
)
# `access_key=...` and the like, of a query or of a connection string; also with a prefix, as in X-Amz-Signature
_PAIR = re.compile(
    r"""(?<![a-z])((?:access_?key(?:_?id)?|secret(?:_?access)?_?key|account_?key|shared_?access_?key|api_?key
                     |client_?secret|secret|credential|security-token|token|signature|sig|password|passwd|pwd)=)
        (?!\s)[^&;\s"']+""",
    re.VERBOSE | re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """Replace the credentials in a text by `***`.

    >>> hide_secrets("s3://KEY:SECRET@bucket/a?scheme=http, http://host/?token=abc&x=1")
    's3://***@bucket/a?scheme=http, http://host/?token=***&x=1'
    """
    return _PAIR.sub(rf"\g<1>{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def hide_secrets_within(document: Any) -> Any:
    """Replace the credentials in all texts of a JSON-like document."""
    if isinstance(document, dict):
        return {key: hide_secrets_within(value) for key, value in document.items()}
    if isinstance(document, list):
        return [hide_secrets_within(value) for value in document]
    return hide_secrets(document) if isinstance(document, str) else document
