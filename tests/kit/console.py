# SPDX-License-Identifier: Apache-2.0
"""A machine's console on pipes: everything it says is kept and logged; waiting has a time limit."""

import codecs
import os
import re
import threading
import time

PAUSE = 2  # seconds without another character, after which a line is taken for whole


class ConsoleTimeout(AssertionError):
    """What was waited for did not come in time, or the console closed before."""


class Console:
    """Reads `output` (a file descriptor) on a thread of its own; writes to `input`.

        console.wait_for(r"login: ", 60)
        console.send("root\\n")
    """

    def __init__(self, output, input, log_path):
        self._output, self._input = output, input
        self._log_path = log_path
        self._text = ""
        self._from = 0  # where the next wait begins
        self._closed = False
        self._commands = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with open(self._log_path, "wb") as log:
            while True:
                try:
                    chunk = os.read(self._output, 65536)
                except OSError:
                    chunk = b""
                if not chunk:
                    break
                log.write(chunk)
                log.flush()
                with self._changed:
                    self._text += decoder.decode(chunk).replace("\r", "")
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for(self, pattern, seconds):
        """Waits for the regular expression after the last match; returns its match object. Raises ConsoleTimeout. The
        end of a line ("$") is not where what has come so far ends, unless nothing more comes for a while."""
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + seconds
        length, since = -1, 0
        with self._changed:
            while True:
                match = wanted.search(self._text, self._from)
                if len(self._text) != length:
                    length, since = len(self._text), time.monotonic()
                goes_on = match and pattern.endswith("$") and match.end() == length and not self._closed
                if match and not (goes_on and time.monotonic() < min(since + PAUSE, deadline)):
                    self._from = match.end()
                    return match
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    why = "the console closed" if self._closed else f"nothing for {seconds} s"
                    raise ConsoleTimeout(f"waiting for {pattern!r}: {why}; the console's last lines "
                                         f"(whole: {self._log_path}):\n{self.tail()}")
                self._changed.wait(min(left, 1))

    def tail(self, lines=25):
        return "\n".join(self._text.splitlines()[-lines:])

    @property
    def text(self):
        with self._changed:
            return self._text

    def send(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self._input, data):]

    def check(self, command, seconds):
        """Runs a command in the shell that listens there; it must succeed. Works with and without echo and line editing: the
        answer need not begin its line, for an editor's escape sequences and an echo may come before it."""
        self._commands += 1
        mark = f"done-{self._commands}-"
        self.send(f"{command}; echo {mark}$?\n")
        status = self.wait_for(rf"{mark}(\d+)\n", seconds).group(1)
        assert status == "0", f"in the guest: {command}\nexit status {status}, the console's last lines:\n{self.tail()}"

    def join(self, seconds):
        """Waits until the console has closed and everything is read."""
        self._thread.join(seconds)
