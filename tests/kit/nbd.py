# SPDX-License-Identifier: Apache-2.0
"""A server of disks (NBD) that falls silent when a test says so."""

import os
import socket
import struct
import threading

READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3


class Server:
    """Exports a file, writable, on a Unix socket until it is closed. `silent_from(command)`: from the next such command on it
    answers nothing, until `speak()`. `state`: "well", "mute" (takes connections and says nothing), "broken" (reads fail) or "shy"
    (hangs up after the handshake)."""

    def __init__(self, disk, path):
        self.file, self.size, self.state = os.open(disk, os.O_RDWR), os.stat(disk).st_size, "well"
        self.changed, self.waits_for, self.silent, self.held = threading.Condition(), None, False, 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.speak()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def silent_from(self, command):
        with self.changed:
            self.waits_for = command

    def speak(self):
        with self.changed:
            self.waits_for, self.silent, self.held = None, False, 0
            self.changed.notify_all()

    def wait_until_silent(self, seconds):
        """That it owes an answer."""
        with self.changed:
            return self.changed.wait_for(lambda: self.held != 0, seconds)

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                if self.state == "mute":
                    while connection.recv(4096):
                        pass
                elif self.negotiate(connection) and self.state != "shy":
                    while self.answer(connection):
                        pass
            except (ConnectionError, EOFError):
                pass

    @staticmethod
    def take(connection, length):
        taken = b""
        while len(taken) < length:
            piece = connection.recv(length - len(taken))
            if not piece:
                raise EOFError
            taken += piece
        return taken

    def negotiate(self, connection):
        connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self.take(connection, 4)
        while True:
            magic, option, length = struct.unpack(">8sII", self.take(connection, 16))
            assert magic == b"IHAVEOPT", magic
            self.take(connection, length)

            def reply(kind, data=b"", option=option):
                connection.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)
            if option == 7:  # go: flags, flush
                reply(3, struct.pack(">HQH", 0, self.size, 5))
                reply(1)
                return True
            reply(0x80000001)

    def answer(self, connection):
        magic, _, command, cookie, offset, length = struct.unpack(">IHHQQI", self.take(connection, 28))
        assert magic == 0x25609513, magic
        if command == DISCONNECT:
            return False
        data = self.take(connection, length) if command == WRITE else b""
        with self.changed:
            self.silent = self.silent or command == self.waits_for
            self.held += self.silent
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self.silent)
        error = 5 if command == READ and self.state == "broken" else 0
        if command == WRITE:
            os.pwrite(self.file, data, offset)
        connection.sendall(struct.pack(">IIQ", 0x67446698, error, cookie))
        if command == READ and not error:
            connection.sendall(os.pread(self.file, length, offset))
        return True
