# SPDX-License-Identifier: Apache-2.0
"""A VNC client of few words (RFC 6143), for what no client of Debian's shows without a person."""

import socket
import struct

RAW, ZRLE, DESKTOP_SIZE, CURSOR, EXTENDED_DESKTOP_SIZE = 0, 16, -223, -239, -308


class Rfb:
    """A conversation at a Unix socket (its path) or a port (its number) of this host, by RFB 3.8 without security.
    `width`, `height`: the screen's."""

    def __init__(self, where, encodings=(RAW,)):
        port = isinstance(where, int)
        self.socket = socket.socket(socket.AF_INET if port else socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", where) if port else str(where))
        assert self.receive(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.008\n")
        assert self.receive(2) == b"\1\1"
        self.socket.sendall(b"\1")
        assert self.receive(4) == bytes(4)
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.receive(4))
        self.receive(16)
        self.receive(struct.unpack(">I", self.receive(4))[0])
        self.socket.sendall(struct.pack(f">BBH{len(encodings)}i", 2, 0, len(encodings), *encodings))

    def receive(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, "the server hung up"
            data += more
        return data

    def request(self, incremental=True):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def cut_text(self, text):
        data = text.encode("latin-1")
        self.socket.sendall(struct.pack(">BxxxI", 6, len(data)) + data)

    def set_size(self, width, height):
        self.socket.sendall(struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 0, 0, 0, width, height, 0))

    def message(self):
        """The next one: ("text", text), or ("update", [(encoding, x, y, width, height, data)])."""
        kind = self.receive(1)[0]
        if kind == 3:
            length = struct.unpack(">xxxI", self.receive(7))[0]
            return "text", self.receive(length).decode("latin-1")
        assert kind == 0, f"message {kind}"
        rectangles = []
        for _ in range(struct.unpack(">xH", self.receive(3))[0]):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.receive(12))
            length = {RAW: width * height * 4, DESKTOP_SIZE: 0,
                      CURSOR: width * height * 4 + (width + 7) // 8 * height}.get(encoding)
            if encoding == EXTENDED_DESKTOP_SIZE:
                length = 16 * self.receive(4)[0]
            if encoding == ZRLE:
                length = struct.unpack(">I", self.receive(4))[0]
            if encoding in (DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE):
                self.width, self.height = width, height
            rectangles.append((encoding, x, y, width, height, self.receive(length)))
        return "update", rectangles
