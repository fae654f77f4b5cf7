"""Who may use a server: tokens, and requests that a web page made a browser send."""

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path

from actionprior.errors import UserError

_SCHEME = "Api-Key "  # openpi's client sends `Authorization: Api-Key KEY`


def read_token(path: Path) -> str:
    """Read a shared secret from a file, without blanks around it.

    Raises:
        UserError: The file cannot be read, is empty, or holds more than one line.
    """
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the token file {path} cannot be read ({error})") from error
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"the token file {path} holds no token; expected one line of 16 or more letters and "
            "digits, such as `openssl rand -hex 32` prints (--token_file)"
        )
    return token


def knows_token(headers: Mapping[str, str], token: bytes) -> bool:
    """Check the API key of a request, in a time that does not depend on how much of it is right."""
    sent = _single(headers, "Authorization")
    key = sent.removeprefix(_SCHEME).encode("utf-8", "replace")
    return hmac.compare_digest(key, token) and sent.startswith(_SCHEME)


def asked_directly(headers: Mapping[str, str], host: str) -> bool:
    """Check that no web page made a browser send a request.

    A page of another origin says so. A page whose own name was pointed at this server (DNS
    rebinding) sends that name as ``Host``, so that only addresses and this machine's names pass.

    Args:
        headers: Headers of the request.
        host: Address or name that the server listens on.
    """
    if "Origin" in headers or "Sec-Fetch-Site" in headers:
        return False
    name = _host_name(_single(headers, "Host"))
    return _is_address(name) or name in {host, "localhost", socket.gethostname(), socket.getfqdn()}


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _single(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a header that stands once; empty if it is missing or stands twice."""
    try:
        return headers.get(name, "")
    except LookupError:  # websockets' error about several values
        return ""


def _host_name(value: str) -> str:
    """Return the name of a ``Host`` header, without the port."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
