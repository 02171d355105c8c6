"""A DNS server for tests: answers A questions from a file of `name address` lines, read again for each question."""

import socket
import struct
import sys

address, zone = sys.argv[1:]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))
print("ready", flush=True)
while True:
    question, client = server.recvfrom(4096)
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    end = at + 5
    kind = struct.unpack("!H", question[at + 1 : at + 3])[0]
    name = ".".join(labels).lower()
    with open(zone) as lines:
        pairs = [line.split() for line in lines]
    addresses = [address for known, address in pairs if known == name]
    answers = addresses if kind == 1 else []
    # Authoritative, recursion available; 3 is NXDOMAIN.
    flags = 0x8580 | (0 if addresses else 3)
    head = question[:2] + struct.pack("!5H", flags, 1, len(answers), 0, 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(it) for it in answers
    )
    server.sendto(head + question[12:end] + records, client)
