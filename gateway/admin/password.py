"""Keep a password as its hash: scrypt (RFC 7914) with a salt of its own, in one line of text."""

import base64
import hashlib
import hmac
import secrets

_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 1  # 16 MiB and some 50 ms for each guess


def hashed(password: str) -> str:
    """Make the line for the password file."""
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, _COST, _BLOCK, _PARALLEL)
    return f"scrypt:{_COST}:{_BLOCK}:{_PARALLEL}:{_text(salt)}:{_text(key)}"


def is_hash(line: str) -> bool:
    """Say whether a line is one that `hashed` makes."""
    try:
        _parts(line)
    except ValueError:
        return False
    return True


def fits(password: str, line: str) -> bool:
    """Say whether the line was made of this password; raises ValueError when it is not such a line."""
    cost, block, parallel, salt, key = _parts(line)
    return hmac.compare_digest(_scrypt(password, salt, cost, block, parallel), key)


def _parts(line: str) -> tuple[int, int, int, bytes, bytes]:
    kind, *fields = line.strip().split(":")
    if kind != "scrypt" or len(fields) != 5:
        raise ValueError("not a line of the kind scrypt:cost:block:parallel:salt:key")
    cost, block, parallel = (int(field) for field in fields[:3])
    salt, key = (base64.b64decode(field, validate=True) for field in fields[3:])
    return cost, block, parallel, salt, key


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=1 << 26, dklen=32)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
