"""Tries to reach a host in every way: attempts.py MARK IPV4 IPV6 PORT

Each attempt sends its own mark, so that the host's log tells which arrived.
One line an attempt: its name, and what became of it.
"""

import socket
import sys

mark, ipv4, ipv6, port = sys.argv[1:5]
mapped = "::ffff:" + ipv4
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def attempt(name, family, kind, address, connect=True):
    payload = f"{mark}-{name};".encode()
    with socket.socket(family, kind) as s:
        s.settimeout(3)
        if connect:
            s.connect((address, int(port)))
            s.sendall(payload)
        else:
            s.sendto(payload, (address, int(port)))
        return s.recv(64).decode().strip() or "closed"


for name, *how in [
    ("tcp-ipv4", socket.AF_INET, TCP, ipv4),
    ("tcp-ipv6", socket.AF_INET6, TCP, ipv6),
    ("tcp-mapped", socket.AF_INET6, TCP, mapped),
    ("udp-ipv4", socket.AF_INET, UDP, ipv4, False),
    ("udp-ipv6", socket.AF_INET6, UDP, ipv6, False),
    ("udp-mapped", socket.AF_INET6, UDP, mapped, False),
    ("udp-connected-ipv4", socket.AF_INET, UDP, ipv4),
    ("udp-connected-ipv6", socket.AF_INET6, UDP, ipv6),
]:
    try:
        print(name, attempt(name, *how))
    except OSError as e:
        print(name, type(e).__name__, e)
