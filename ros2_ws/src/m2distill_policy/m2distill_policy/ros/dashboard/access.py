"""Who may use the dashboard: names under which it is reached, origins of requests, and a token for other computers.

A page of another site can send requests to a server on this computer, and a name of its own can resolve to it (DNS
rebinding). So the Host of every request must be a known name, and requests that change something must have an Origin
that is the dashboard's own.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from m2distill_policy.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "m2distill_dashboard"
MIN_TOKEN = 20  # characters


@dataclass(frozen=True)
class Access:
    """Rules of one dashboard.

    Args:
        origins: Origins under which other computers reach it, such as http://robot.lan:8770.
        token: Secret that a browser must have sent once; empty: none is required.
    """

    origins: tuple[str, ...] = ()
    token: str = ""

    def problem(self, host: str, origin: str | None, changes: bool) -> str:
        """Return why a request is rejected by its headers Host and Origin; empty if it is not.

        Args:
            host: Header Host.
            origin: Header Origin, None if there is none.
            changes: The request may change something, or opens a websocket, so it must have an Origin.
        """
        if _hostname(f"//{host}") not in LOOPBACK and host not in {urlsplit(o).netloc for o in self.origins}:
            return f"host {host!r} is not a name of this dashboard; use localhost, or start it with --origin"
        if origin is None:
            return "the request has no Origin" if changes else ""
        own = origin in self.origins or (origin == f"http://{host}" and _hostname(origin) in LOOPBACK)
        return "" if own else f"origin {origin!r} is another site"

    @property
    def session(self) -> str:
        """Value of the cookie of a browser that has sent the token."""
        return hmac.new(self.token.encode(), b"session of the dashboard", hashlib.sha256).hexdigest()

    def is_known(self, cookie: str) -> bool:
        """Return whether a browser with this cookie has sent the token, or needs none."""
        return not self.token or hmac.compare_digest(cookie.encode(), self.session.encode())

    def accepts(self, token: str) -> bool:
        """Return whether this is the token."""
        return hmac.compare_digest(token.strip().encode(), self.token.encode())


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as brackets without an address
        return ""


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach a server that is bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access_rules(host: str, origin: str, token_file: str) -> Access:
    """Return the rules for a server bound to `host`. Raises UserError if other computers reach it unprotected."""
    origins = tuple(_checked(origin.split()))
    if is_loopback(host) and not (origins or token_file):
        return Access()
    if not (origins and token_file):
        raise UserError(
            f"host {host} with origin {origin!r} and token_file {token_file!r} would let others use the dashboard "
            "unprotected; set both: --origin http://NAME:PORT as browsers reach it, and --token-file FILE"
        )
    return Access(origins, read_token(Path(token_file)))


def _checked(origins: Iterable[str]) -> Iterable[str]:
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise UserError(f"origin is {origin!r}, expected http://NAME:PORT or https://NAME without a path")
        yield origin


def read_token(path: Path) -> str:
    """Return the token in a file that only its owner can read; a file that does not exist gets a random one.

    Raises:
        UserError: The file cannot be used, others can read it, or the token is short.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        mode, token = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"token_file {path} cannot be used ({error}); choose another file") from None
    if mode & 0o077:
        raise UserError(f"token_file {path} can be read by others; run chmod 600 {path}")
    if len(token) < MIN_TOKEN:
        raise UserError(
            f"the token in {path} has {len(token)} characters, required are {MIN_TOKEN}; remove the file for a new one"
        )
    return token
