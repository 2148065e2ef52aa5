"""Asks for names in every way: lookups.py MARK DOMAIN SERVER...

The mark is part of each name, so that the name server's log tells which
question arrived. One line a question: how it was asked, and the answer.
"""

import socket
import struct
import sys

mark, domain, *servers = sys.argv[1:]


def query(name):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def rcode(reply):
    return f"rcode {struct.unpack('!H', reply[2:4])[0] & 15}"


def resolver(name, server):
    return socket.getaddrinfo(name, 80)[0][4][0]


def udp(name, server):
    with socket.socket(family(server), socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        s.sendto(query(name), (server, 53))
        return rcode(s.recv(4096))


def tcp(name, server):
    with socket.socket(family(server), socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((server, 53))
        q = query(name)
        s.sendall(struct.pack("!H", len(q)) + q)
        return rcode(s.recv(4096)[2:])


def family(server):
    return socket.AF_INET6 if ":" in server else socket.AF_INET


attempts = [("resolver", resolver, "")]
for server in servers:
    v = "ipv6" if ":" in server else "ipv4"
    attempts += [(f"udp-{v}", udp, server), (f"tcp-{v}", tcp, server)]

for how, ask, server in attempts:
    try:
        print(how, ask(f"{mark}-{how}.{domain}", server))
    except OSError as e:
        print(how, type(e).__name__, e)
