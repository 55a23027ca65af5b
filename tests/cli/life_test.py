#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The life of machines: exit statuses, names, ps, stop, kill, reset, stats, rm, console, and what killed ones leave."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

from kit import LODGE, LodgeTest, read_until


class Foreground(LodgeTest):
    def ends_with(self, typed, status):
        result = self.lodge("run", "--kernel", self.kernel, stdin=typed)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(self.machines(), [])
        return result

    def test_exit_statuses(self):
        self.ends_with("poweroff\n", 0)
        self.ends_with("exit 1\n", 1)
        self.ends_with("exit 33\n", 33)
        self.assertIn("the guest crashed", self.ends_with("crash\n", 6).stderr)

    def test_output_is_whole(self):
        result = self.ends_with("quiet\nflood 100000\npoweroff\n", 0)
        numbers = re.findall(r"flood (\d{8})\n", result.stdout)
        self.assertTrue(numbers == ["%08d" % i for i in range(100000)])

    def test_input_from_a_file(self):
        path = os.path.join(self.folder, "typed")
        with open(path, "w") as typed:
            typed.write("x" * 50000 + "\npoweroff\n")
        with open(path) as typed:
            result = subprocess.run([LODGE, "run", "--kernel", self.kernel], env=self.env, stdin=typed,
                                    capture_output=True, timeout=30)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stdout.count(b"x"), 50000)

    def test_end_of_input_is_not_the_end(self):
        machine = self.start("--name", "web", stdin=subprocess.DEVNULL)
        read_until(machine.stdout, b"fake guest")
        time.sleep(0.3)
        self.assertIsNone(machine.poll())
        self.assertEqual(self.lodge("stop", "web").returncode, 0)
        self.assertEqual(machine.wait(10), 0)
        machine.communicate()

    def test_blocked_output_stops_the_guest_and_loses_nothing(self):
        machine = self.start("--name", "web")
        machine.stdin.write(b"quiet\nflood 600000\npoweroff\n")
        machine.stdin.flush()
        self.eventually(lambda: b"blocked" in self.lodge("ps").stdout.encode())
        before = self.cpu_time(machine.pid)
        time.sleep(0.5)
        self.assertLess(self.cpu_time(machine.pid) - before, 10, "it spins")
        out, _ = machine.communicate(timeout=60)
        self.assertEqual(machine.returncode, 0)
        self.assertTrue(out.endswith(b"flood 00599999\n"))
        self.assertEqual(out.count(b"\n"), 600000 + 2)

    @staticmethod
    def cpu_time(pid):
        with open("/proc/%d/stat" % pid) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def test_reader_goes_away(self):
        machine = self.start("--name", "web")
        read_until(machine.stdout, b"fake guest")
        machine.stdout.close()
        machine.stdin.write(b"flood 1000\n")
        machine.stdin.flush()
        self.assertIn("cannot be written", machine.stderr.readline().decode())
        machine.stdin.write(b"poweroff\n")
        machine.stdin.close()
        self.assertEqual(machine.wait(10), 0)
        machine.stderr.close()

    def test_kill_with_blocked_output(self):
        machine = self.start("--name", "web")
        machine.stdin.write(b"flood 100000000\n")
        machine.stdin.flush()
        self.eventually(lambda: "blocked" in self.lodge("ps").stdout)
        begin = time.monotonic()
        self.assertEqual(self.lodge("kill", "web").returncode, 0)
        self.assertEqual(machine.wait(10), 8)
        self.assertLess(time.monotonic() - begin, 8)
        machine.communicate()

    def test_signals(self):
        for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]:
            machine = self.start()
            read_until(machine.stdout, b"fake guest")
            machine.send_signal(number)
            _, error = machine.communicate(timeout=10)
            self.assertEqual(machine.returncode, 0)
            self.assertIn(b"power button pressed", error)
        machine = self.start()
        machine.stdin.write(b"deaf\nready\n")
        machine.stdin.flush()
        read_until(machine.stdout, b"ready")
        machine.send_signal(signal.SIGTERM)
        read_until(machine.stderr, b"power button")
        self.assertIsNone(machine.poll())
        machine.send_signal(signal.SIGTERM)
        machine.communicate(timeout=10)
        self.assertEqual(machine.returncode, 8)

    def test_a_machine_that_does_not_stop(self):
        machine = self.start("--name", "web")
        machine.stdin.write(b"stuck\nready\n")
        machine.stdin.flush()
        read_until(machine.stdout, b"ready")
        result = self.lodge("kill", "web")
        self.assertEqual(result.returncode, 0, result.stderr)
        machine.communicate(timeout=10)
        self.assertEqual(machine.returncode, 8)
        self.assertEqual(self.machines(), [])


class Detached(LodgeTest):
    def test_life(self):
        self.detach("web", "--append", "hello there", "--cpus", "3", "--memory", "1.5G")
        table = self.lodge("ps").stdout.split("\n")
        self.assertEqual(table[0].split(), ["NAME", "STATE", "ENGINE", "CPUS", "MEMORY", "UPTIME", "PID"])
        self.assertEqual(table[1].split()[:6], ["web", "running", "fake", "3", "1.50", "GiB"])
        entry = json.loads(self.lodge("ps", "--json").stdout)[0]
        self.assertEqual(entry["name"], "web")
        self.assertEqual(entry["memory"], 1536 << 20)
        self.assertEqual(entry["config"]["append"], "hello there")
        os.kill(entry["pid"], 0)
        self.assertEqual(self.lodge("ps", "-q").stdout, "web\n")
        self.assertFails(self.lodge("rm", "web"), 2, "is running", "lodge stop web")
        self.assertEqual(self.lodge("stop", "web").returncode, 0)
        self.assertEqual(self.lodge("ps", "-q").stdout, "")
        self.assertIn("web   powered-off", self.lodge("ps", "-a").stdout)
        self.assertFails(self.lodge("stop", "web"), 2, "not running", "powered off")
        self.assertEqual(self.lodge("rm", "web").returncode, 0)
        self.assertEqual(self.machines(), [])

    def test_names_are_unique(self):
        self.detach("web")
        self.assertFails(self.lodge("run", "-d", "--name", "web", "--kernel", self.kernel), 2, "'web' is taken",
                         "--name", "lodge stop web")
        self.assertFails(self.lodge("run", "--name", "web", "--kernel", self.kernel), 2, "'web' is taken")
        self.assertEqual(self.lodge("kill", "web").returncode, 0)
        self.detach("web")

    def test_generated_names(self):
        first = self.lodge("run", "-d", "--kernel", self.kernel).stdout
        second = self.lodge("run", "-d", "--kernel", self.kernel).stdout
        self.assertEqual([first, second], ["vm1\n", "vm2\n"])

    def test_many_at_once_get_different_names(self):
        runs = [subprocess.Popen([LODGE, "run", "-d", "--kernel", self.kernel], env=self.env, stdout=subprocess.PIPE)
                for _ in range(12)]
        names = {run.communicate()[0] for run in runs}
        self.assertEqual(len(names), 12)

    def test_kill_and_exit_status(self):
        self.detach("web")
        self.assertEqual(self.lodge("kill", "web").returncode, 0)
        self.assertIn("killed", self.lodge("ps", "--all").stdout)
        self.assertEqual(self.lodge("rm", "web").returncode, 0)

    def test_several_names(self):
        for name in ["a", "b", "c"]:
            self.detach(name)
        result = self.lodge("stop", "a", "nobody", "c")
        self.assertEqual(result.returncode, 2)
        self.assertIn("nobody", result.stderr)
        self.assertEqual(self.lodge("ps", "-q").stdout, "b\n")
        self.assertEqual(self.lodge("rm", "-f", "a", "b", "c").returncode, 0)
        self.assertEqual(self.machines(), [])

    def test_stop_of_a_deaf_guest(self):
        self.detach("web")
        self.assertIn("ready", self.type("web", "deaf\nready\n", "ready"))
        begin = time.monotonic()
        result = self.lodge("stop", "--timeout", "1", "web")
        self.assertEqual(result.returncode, 0)
        self.assertIn("turned off", result.stdout)
        self.assertGreaterEqual(time.monotonic() - begin, 1)
        self.assertIn("killed", self.lodge("ps", "--all").stdout)

    def type(self, name, text, until):
        """Types at the console through a pipe; returns the output up to `until`."""
        console = subprocess.Popen([LODGE, "console", name], env=self.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        console.stdin.write(text.encode())
        console.stdin.flush()
        out = read_until(console.stdout, until.encode())
        console.terminate()
        console.communicate()
        self.assertEqual(console.returncode, 0)
        return out.decode()

    def test_reset(self):
        self.detach("web")
        self.assertEqual(self.lodge("reset", "web").returncode, 0)
        self.assertIn("[reset]", self.type("web", "", "[reset]"))

    def test_stats(self):
        self.detach("web")
        self.type("web", "one\ntwo\nthree\n", "three")
        stats = self.lodge("stats", "web")
        self.assertRegex(stats.stdout, r"fake.lines +3\n", stats.stderr)
        counters = json.loads(self.lodge("stats", "--json", "web").stdout)["counters"]
        self.assertGreater(counters["process.residentBytes"], 100000)
        watch = subprocess.Popen([LODGE, "stats", "--watch", "web"], env=self.env, stdout=subprocess.PIPE)
        self.assertIn(b"COUNTER", read_until(watch.stdout, b"PER SECOND"))
        self.lodge("kill", "web")
        self.assertEqual(watch.wait(10), 0)
        watch.stdout.close()

    def test_console_of_an_ended_machine(self):
        self.detach("web", "--append", "last words")
        console = subprocess.Popen([LODGE, "console", "web"], env=self.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = console.communicate(b"crash\n", timeout=10)
        self.assertIn(b"crash", out)
        self.assertIn(b"web: the guest crashed", error)
        self.eventually(lambda: "crashed" in self.lodge("ps", "-a").stdout)
        again = self.lodge("console", "web")
        self.assertIn("last words", again.stdout)
        self.assertIn("web: the guest crashed", again.stderr)

    def test_killed_processes_are_cleaned_up(self):
        self.detach("web")
        pid = json.loads(self.lodge("ps", "--json").stdout)[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        self.eventually(lambda: not os.path.exists("/proc/%d" % pid))
        self.assertEqual(self.machines(), ["web"])
        self.assertEqual(self.lodge("ps", "-a", "-q").stdout, "")
        self.assertEqual(self.machines(), [])
        self.detach("web")

    def test_a_crashed_process(self):
        self.detach("web")
        console = subprocess.Popen([LODGE, "console", "web"], env=self.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        console.communicate(b"abort\n", timeout=10)
        self.assertEqual(self.lodge("ps", "-a", "-q").stdout, "")
        self.assertEqual(self.machines(), [])

    def test_a_stopped_process(self):
        self.detach("web")
        pid = json.loads(self.lodge("ps", "--json").stdout)[0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        self.assertIn("unresponsive", self.lodge("ps").stdout)
        self.assertFails(self.lodge("reset", "web"), 2, "'web' does not answer", "lodge kill web")
        self.assertEqual(self.lodge("kill", "web").returncode, 0)
        self.assertEqual(self.machines(), [])

    def test_away_from_the_terminal(self):
        """The process has its own session and holds nothing of the caller's."""
        self.detach("web")
        pid = json.loads(self.lodge("ps", "--json").stdout)[0]["pid"]
        self.assertEqual(os.getsid(pid), pid)
        self.assertEqual(os.readlink("/proc/%d/cwd" % pid), "/")
        for fd in (0, 1):
            self.assertEqual(os.readlink("/proc/%d/fd/%d" % (pid, fd)), "/dev/null")
        self.assertTrue(os.readlink("/proc/%d/fd/2" % pid).endswith("/web/log"))

    def test_hostile_client(self):
        self.detach("web")
        path = os.path.join(self.folder, "lodge", "web", "control")
        for garbage in [b"\0" * 1000, b"{" * 70000, b"\xff\n" * 5000, b'{"request":"consoleAttach"}\n\xff\xff\xff']:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.settimeout(0.2)
                try:
                    client.sendall(garbage)
                    client.recv(10)
                except OSError:
                    pass
        self.assertIn("running", self.lodge("ps").stdout)

    def test_two_consoles(self):
        self.detach("web")
        consoles = [subprocess.Popen([LODGE, "console", "web"], env=self.env, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
        for console in consoles:
            read_until(console.stdout, b"fake guest")
        consoles[0].stdin.write(b"hello\n")
        consoles[0].stdin.flush()
        for console in consoles:
            read_until(console.stdout, b"hello")
        threading.Timer(0.2, lambda: self.lodge("kill", "web")).start()
        for console in consoles:
            _, error = console.communicate(timeout=20)
            self.assertEqual(console.returncode, 0)
            self.assertIn(b"turned off", error)


if __name__ == "__main__":
    unittest.main()
