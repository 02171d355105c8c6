"""Turns a pcap file on standard input into what the target decode_frame reads: the link type, then each frame behind its length."""
import struct
import sys

data = sys.stdin.buffer.read()
order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
out = struct.pack("<H", struct.unpack(order + "I", data[20:24])[0] & 0xFFFF)
at = 24
while at + 16 <= len(data) and len(out) < 60000:
    length = struct.unpack(order + "I", data[at + 8 : at + 12])[0]
    out += struct.pack("<H", length & 0xFFFF) + data[at + 16 : at + 16 + length]
    at += 16 + length
sys.stdout.buffer.write(out)
