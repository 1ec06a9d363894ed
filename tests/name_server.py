"""A DNS server on loopback for the tests: zones by name, faults by name, written with dnspython."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class NameServer:
    """`zones` maps a domain to its records by type; `faults` to servfail or silence."""

    address: str
    zones: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def answer(self, wire: bytes) -> bytes | None:
        """Reply to one question; None for silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked[name] += 1
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA | dns.flags.AA
        fault = self.faults.get(name)
        if fault == "silence":
            return None
        if fault == "servfail":
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.zones:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        else:
            kind = dns.rdatatype.to_text(question.rdtype)
            records = self.zones[name].get(kind, [])
            if records:
                reply.answer.append(dns.rrset.from_text(question.name, 300, "IN", kind, *records))
        return reply.to_wire()


@contextmanager
def running_name_server() -> Iterator[NameServer]:
    """A server until the block ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.1)
        server = NameServer(f"127.0.0.1:{sock.getsockname()[1]}")
        done = threading.Event()

        def work() -> None:
            while not done.is_set():
                try:
                    wire, peer = sock.recvfrom(4096)
                except TimeoutError:
                    continue
                if (reply := server.answer(wire)) is not None:
                    sock.sendto(reply, peer)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield server
        finally:
            done.set()
            thread.join()
