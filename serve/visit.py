"""What a request on a public link tells of who made it: kept with the event, for the bot filter."""

from ipaddress import ip_address, ip_network
from typing import Final

from fastapi import Request

AGENT_CHARACTERS: Final = 300
PREFIX: Final = {4: 24, 6: 48}  # a network tells scanners apart; a whole address would tell persons


def visit_of(request: Request) -> dict[str, str]:
    """user_agent, address (its network only) and method of a request; "" where unknown."""
    return {
        "user_agent": request.headers.get("user-agent", "")[:AGENT_CHARACTERS],
        "address": network_of(request.client.host if request.client else ""),
        "method": request.method,
    }


def network_of(host: str) -> str:
    """Network of an address, such as 203.0.113.0/24; "" for what is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return str(ip_network(f"{address}/{PREFIX[address.version]}", strict=False))
