#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad usage: one line that names the thing and the fix, exit status 2, nothing left behind."""

import json
import os
import unittest

from kit import LODGE, LodgeTest

VERBS = ["run", "ps", "console", "stop", "kill", "reset", "screenshot", "sendkey", "type", "stats", "rm", "qemu", "doctor", "completion", "help", "version"]


class Usage(LodgeTest):
    def run_fails(self, arguments, *texts):
        self.assertFails(self.lodge("run", *arguments), 2, *texts)
        self.assertEqual(self.machines(), [])

    def test_nothing(self):
        self.assertFails(self.lodge(), 2, "'lodge help'")

    def test_unknown_verb(self):
        self.assertFails(self.lodge("rum"), 2, "unknown verb 'rum'", "did you mean 'lodge run'?")
        self.assertFails(self.lodge("\x1b[2J"), 2, "unknown verb '\\x1b[2J'")
        self.assertFails(self.lodge("--frobnicate"), 2, "unknown option '--frobnicate'")

    def test_unknown_option(self):
        self.run_fails(["--memroy", "1G"], "unknown option '--memroy' for 'lodge run'", "did you mean '--memory'?")
        self.run_fails(["-z"], "unknown option '-z'")
        self.run_fails(["--detach=yes"], "takes no value")
        self.run_fails(["--kernel"], "option '--kernel' needs a value")
        self.run_fails(["kernel"], "does not know what to do with 'kernel'")

    def test_no_kernel(self):
        self.run_fails([], "a machine needs a kernel", "--kernel FILE")

    def test_missing_kernel(self):
        self.run_fails(["--kernel", "/nonexistent"], "/nonexistent", "No such file")
        self.assertFails(self.lodge("run", "-d", "--kernel", "/nonexistent"), 2, "/nonexistent")
        self.assertEqual(self.machines(), [])

    def test_values(self):
        k = ["--kernel", self.kernel]
        self.run_fails(k + ["--cpus", "0"], "--cpus 1 to 16")
        self.run_fails(k + ["--cpus", "two"], "--cpus 'two' is not a number")
        self.run_fails(k + ["--memory", "512"], "'512' has no unit", "512M")
        self.run_fails(k + ["-m", "lots"], "'lots' is not a size")
        self.run_fails(k + ["--engine", "warp"], "--engine 'warp' does not exist", "auto, translate, interpret, kvm")
        self.run_fails(k + ["--name", "a b"], "machine name 'a b' is not valid")
        self.run_fails(k + ["--name", ""], "a machine name cannot be empty")
        self.run_fails(k + ["--debug-exit", "0x10000"], "is not an I/O port")
        self.run_fails(k + ["--trace", "everything"], "--trace 'everything' does not exist", "io")

    def test_disks(self):
        k = ["--kernel", self.kernel]
        self.run_fails(k + ["--disk", ""], "names no file")
        self.run_fails(k + ["--disk", "a.img,format=tape"], "'tape'", "raw")
        self.run_fails(k + ["--disk", "a.img,readnoly"], "unknown setting 'readnoly'")

    def test_networks(self):
        k = ["--kernel", self.kernel]
        self.run_fails(k + ["--net", "bridge"], "unknown kind 'bridge'")
        self.run_fails(k + ["--net", "user,forward=tcp:22"], "forward 'tcp:22'", "forward=tcp:127.0.0.1:2222:22")
        self.run_fails(k + ["--net", "user,forward=tcp::0:22"], "'0' is not a port")
        self.run_fails(k + ["--net", "user,forward=icmp::1:22"], "tcp or udp")
        self.run_fails(k + ["--net", "user,forward=tcp:localhost:1:22"], "'localhost' is not an IP address")
        self.run_fails(k + ["--net", "user,mac=01:00:00:00:00:00"], "not a card's address")
        self.run_fails(k + ["--net", "none", "--net", "user"], "--net none with another --net")

    def test_machine_names(self):
        for verb in ["console", "stop", "kill", "reset", "stats", "rm"]:
            self.assertFails(self.lodge(verb), 2, "needs a machine's name")
            self.assertFails(self.lodge(verb, "nobody"), 2, "there is no machine 'nobody'", "lodge ps")
            self.assertFails(self.lodge(verb, "../x"), 2, "is not valid")
        self.assertFails(self.lodge("stop", "x", "--timeout", "soon"), 2, "is not a time")
        self.assertFails(self.lodge("completion", "tcsh"), 2, "bash, zsh, fish")
        self.assertFails(self.lodge("help", "flying"), 2, "flying")

    def test_runtime_folder_of_others(self):
        os.makedirs(os.path.join(self.folder, "lodge"))
        os.chmod(os.path.join(self.folder, "lodge"), 0o755)
        self.assertFails(self.lodge("ps"), 2, "open to somebody else", "XDG_RUNTIME_DIR")
        os.chmod(os.path.join(self.folder, "lodge"), 0o700)

    def test_help(self):
        overview = self.lodge("help")
        self.assertEqual(overview.returncode, 0)
        for verb in VERBS:
            self.assertIn("\n  %s " % verb, overview.stdout)
            text = self.lodge(verb, "--help")
            self.assertEqual(text.returncode, 0)
            self.assertTrue(text.stdout.startswith("Usage: lodge %s" % verb))
            self.assertEqual(text.stdout, self.lodge("help", verb).stdout)
            self.assertEqual(self.lodge(verb, "--help").stderr, "")
            if verb != "version":
                self.assertIn("Examples:", text.stdout, verb)
        self.assertEqual(self.lodge("--version").stdout, self.lodge("version").stdout)

    def test_full_output(self):
        """An answer that cannot be written is no success."""
        with open("/dev/full", "w") as full:
            import subprocess
            self.assertEqual(subprocess.run([LODGE, "help"], stdout=full).returncode, 4)

    def test_doctor(self):
        text = self.lodge("doctor")
        self.assertIn("/dev/kvm", text.stdout)
        report = json.loads(self.lodge("doctor", "--json").stdout)
        self.assertIn(report["engine"]["choice"], ["translate", "interpret", "kvm"])
        for engine in ["kvm", "translate", "interpret"]:
            self.assertIn("usable", report["engines"][engine])
        for key in ["modules", "nested", "otherHypervisors", "kvmCapabilities", "hugePages", "ksm", "iommu", "bridges"]:
            self.assertIn("text", report[key])
        self.assertEqual(report["modules"]["vhostNetDevice"], os.path.exists("/dev/vhost-net"))
        self.assertIn("vhost-net", report["modules"]["text"])
        if not report["engines"]["kvm"]["usable"]:
            self.assertIn(report["kvm"]["reason"], report["engines"]["kvm"]["text"])
            self.assertRegex(report["engines"]["kvm"]["text"], r"\); \w", "what to do")
        if report["kvmCapabilities"].get("USER_MEMORY"):
            self.assertEqual(report["kvm"]["apiVersion"], 12)
        for key in ["hardwareVirtualization", "kvm", "memory", "tap", "userNamespaces", "userfaultfd", "memfd"]:
            self.assertIn("text", report[key])
        self.assertEqual(report["runtimeFolder"]["path"], os.path.join(self.folder, "lodge"))


if __name__ == "__main__":
    unittest.main()
