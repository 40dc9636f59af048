"""Say what to write into config.yaml so that a caller who was refused is let in."""

import yaml

from gateway.config import Config
from gateway.recent import Refusal


def advice(refusal: Refusal, config: Config) -> str:
    """Give the line with the section it belongs to, "" when no line would help."""
    if not refusal.called:  # it did not come to say whom it calls: TLS failed, or it does not speak DICOM
        return ""
    if refusal.called not in config.ae_titles:
        archive = next(iter(config.ae_titles.values())).archive
        return _line("ae_titles", refusal.called, {"archive": archive})
    peer = config.peers.get(refusal.calling)
    if peer is None:
        return (
            ""
            if config.unknown_peers == "accept"
            else _line("peers", refusal.calling, {"addresses": [refusal.address]})
        )
    if peer.addresses and refusal.address not in peer.addresses:
        return _line("peers", refusal.calling, {"addresses": [*peer.addresses, refusal.address]})
    return ""


def _line(section: str, name: str, value: object) -> str:
    flow = yaml.safe_dump({name: value}, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return f"{section}:\n  {flow[1:-1]}"
