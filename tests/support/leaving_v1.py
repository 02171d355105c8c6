"""Version 1 for clients that leave: `leaving_v1.py PORT`.

/left waits until the client has closed its side, and sends interim answers until the client's kernel resets the connection.
/half waits until the client has closed its side, and closes. Everything else is answered with 204.
"""

import socket
import sys
import threading
import time


def serve(connection):
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
        head, data = data.split(b"\r\n\r\n", 1)
        path = head.split(b" ")[1]
        if path in (b"/left", b"/half"):
            connection.recv(1)
            while path == b"/left":
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                time.sleep(0.02)
            return
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def serve_and_close(connection):
    with connection:
        try:
            serve(connection)
        except OSError:
            pass


with socket.create_server(("", int(sys.argv[1]))) as server:
    while True:
        accepted, _ = server.accept()
        threading.Thread(target=serve_and_close, args=(accepted,), daemon=True).start()
