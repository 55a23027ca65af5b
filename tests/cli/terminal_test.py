#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The terminal: raw mode, the monitor menu, and that it is put back on every way out. Driven through tmux."""

import os
import shlex
import signal
import subprocess
import time
import unittest

from kit import LODGE, LodgeTest


@unittest.skipUnless(subprocess.run(["which", "tmux"], capture_output=True).returncode == 0, "tmux is not installed")
class Terminal(LodgeTest):
    def setUp(self):
        super().setUp()
        self.socket = os.path.join(self.folder, "tmux")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "40", "env", "PS1=prompt> ", "dash", "-i")
        self.wait_for("prompt>")
        self.type("stty -a > %s/before" % self.folder)

    def tearDown(self):
        super().tearDown()
        self.tmux("kill-server")

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", self.socket, *arguments], env=self.env, capture_output=True, text=True,
                              timeout=20).stdout

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self):
        return self.tmux("capture-pane", "-p", "-J", "-S", "-200")

    def wait_for(self, text, count=1):
        self.eventually(lambda: self.screen().count(text) >= count)

    def run_machine(self, *arguments):
        self.type(" ".join(shlex.quote(w) for w in [LODGE, "run", "--name", "web", "--kernel", self.kernel, *arguments]))
        self.wait_for("fake guest:")

    def terminal_is_back(self, status):
        self.type("echo status=$?; stty -a > %s/after; echo stty-done" % self.folder)
        self.wait_for("stty-done", 2)
        self.assertIn("status=%s" % status, self.screen())
        with open(self.folder + "/before") as before, open(self.folder + "/after") as after:
            self.assertEqual(before.read(), after.read())

    def pid(self):
        import json
        return json.loads(self.lodge("ps", "--json").stdout)[0]["pid"]

    def test_keys_reach_the_guest(self):
        self.run_machine()
        self.keys("C-c", "C-z", "C-s", "C-q", "C-d")
        self.type("still here")
        self.wait_for("still here")
        self.type("poweroff")
        self.wait_for("prompt>", 3)
        self.terminal_is_back(0)

    def test_quit(self):
        self.run_machine()
        self.keys("C-]", "q")
        self.wait_for("prompt>", 3)
        self.terminal_is_back(8)

    def test_power_button(self):
        self.run_machine()
        self.keys("C-]", "p")
        self.wait_for("prompt>", 3)
        self.terminal_is_back(0)

    def test_menu(self):
        self.run_machine("--cpus", "2")
        self.keys("C-]", "?")
        self.wait_for("press the power button")
        self.keys("C-]", "s")
        self.wait_for("[lodge] web: running on fake, 2 CPUs, 1 GiB of memory, up")
        self.keys("C-]", "r")
        self.wait_for("[reset]")
        self.keys("C-]", "C-]")
        self.type("literal")
        self.wait_for("literal")
        self.assertNotIn("unknown", self.screen())
        self.keys("C-]", "q")
        self.wait_for("prompt>", 3)

    def test_monitor_works_when_the_guest_takes_no_input(self):
        self.run_machine()
        self.type("nap")
        self.keys(*["x"] * 100)
        self.keys("C-]", "s")
        self.wait_for("[lodge] web: running")
        self.keys("C-]", "q")
        self.wait_for("prompt>", 3)
        self.terminal_is_back(8)

    def test_crash_of_the_guest(self):
        self.run_machine()
        self.type("crash")
        self.wait_for("prompt>", 3)
        self.assertIn("the guest crashed", self.screen())
        self.terminal_is_back(6)

    def test_crash_of_the_process(self):
        self.run_machine()
        self.type("abort")
        self.wait_for("prompt>", 3)
        self.terminal_is_back(128 + signal.SIGABRT)

    def test_signals(self):
        for number, status in [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGSEGV, 139), (signal.SIGKILL, 137),
                               (signal.SIGQUIT, 131)]:
            with self.subTest(number):
                self.tmux("send-keys", "-R")
                self.tmux("clear-history")
                self.keys("Enter")
                self.run_machine()
                os.kill(self.pid(), number)
                self.eventually(lambda: self.lodge("ps", "-q").stdout == "")
                time.sleep(0.3)
                self.terminal_is_back(status)

    def test_failure_before_the_start(self):
        self.type(LODGE + " run --kernel /nonexistent")
        self.wait_for("No such file")
        self.terminal_is_back(2)

    def test_console_detach(self):
        self.detach("web")
        for key in ["d", "q"]:
            self.tmux("clear-history")
            self.type(LODGE + " console web")
            self.wait_for("attached to web")
            self.keys("C-]", "s")
            self.wait_for("[lodge] web: running")
            self.keys("C-]", key)
            time.sleep(0.3)
            self.terminal_is_back(0)
            self.tmux("send-keys", "-R")
        self.assertEqual(self.lodge("ps", "-q").stdout, "web\n")

    def test_background_and_foreground(self):
        self.run_machine()
        os.kill(self.pid(), signal.SIGTSTP)
        self.wait_for("Stopped")
        self.type("echo in-the-shell")
        self.wait_for("in-the-shell", 2)
        self.type("fg")
        terminal = self.tmux("display-message", "-p", "#{pane_tty}").strip()
        settings = ["stty", "-a", "-F", terminal]
        self.eventually(lambda: "-isig" in subprocess.run(settings, capture_output=True, text=True).stdout)
        self.keys("C-c")
        self.type("again")
        self.wait_for("again")
        self.type("poweroff")
        self.wait_for("prompt>", 4)
        self.terminal_is_back(0)


if __name__ == "__main__":
    unittest.main()
