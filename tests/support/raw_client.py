"""Sends requests as no client library would: usage raw_client.py HOST:PORT STEPS.json

Each step is a list of pieces, sent one by one on a new connection with a pause of `pause` seconds between them; the step ends
when `answers` final answers have come.
"""
import json
import re
import socket
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
for step in json.load(open(sys.argv[2])):
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in step["pieces"]:
        connection.sendall(piece.encode("latin-1"))
        time.sleep(step.get("pause", 0))
    if step.get("half_close"):
        connection.shutdown(socket.SHUT_WR)
    got = b""
    while len(re.findall(rb"HTTP/1\.1 (?!1)\d\d\d", got)) < step["answers"]:
        more = connection.recv(65536)
        if not more:
            sys.exit("closed after %r" % got)
        got += more
    # Whatever is still under way of the last answer.
    connection.settimeout(0.1)
    try:
        while connection.recv(65536):
            pass
    except socket.timeout:
        pass
    connection.close()
