"""Check how the configuration says by what a caller is known: its networks, its certificates."""

import ipaddress
import re


def network(text: str) -> str:
    """Insist on an IP address or network; raises ValueError."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"is not an IP address and not a network such as 10.0.0.0/24: {error}") from error
    return text


def certificate(text: str) -> str:
    """Give a name or fingerprint as `dimse.tls.names_of` writes it; raises ValueError."""
    kind, colon, digits = text.partition(":")
    if colon and kind.lower() == "sha256":
        text = f"sha256:{digits.replace(':', '')}"
        if not re.fullmatch(r"sha256:[0-9A-Fa-f]{64}", text):
            raise ValueError("sha256: is followed by the 64 hexadecimal digits of the certificate's fingerprint")
    if not text.strip():
        raise ValueError("is empty: give a name in the certificate, or sha256: and its fingerprint")
    return text.lower()
