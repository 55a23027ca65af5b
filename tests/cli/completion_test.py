#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is generated from the verbs' tables: completions for bash, zsh and fish, and the manual page."""

import os
import shutil
import subprocess
import unittest

from kit import LODGE, LodgeTest


def needs(program):
    return unittest.skipUnless(shutil.which(program), program + " is not installed")


class Completion(LodgeTest):
    def setUp(self):
        super().setUp()
        # The scripts say "lodge", as an installed one is called.
        os.makedirs(os.path.join(self.folder, "bin"))
        os.symlink(LODGE, os.path.join(self.folder, "bin", "lodge"))
        self.env["PATH"] = os.path.join(self.folder, "bin") + ":" + self.env["PATH"]

    def complete(self, line):
        """What bash offers at the end of a line."""
        words = line.split(" ")
        quoted = " ".join("'%s'" % w for w in words)
        script = ("source <(lodge completion bash); COMP_WORDS=(%s); COMP_CWORD=%d; compopt() { :; }; _lodge; "
                  "printf '%%s\\n' \"${COMPREPLY[@]}\"" % (quoted, len(words) - 1))
        result = subprocess.run(["bash", "-c", script], env=self.env, capture_output=True, text=True, timeout=20)
        self.assertEqual(result.stderr, "")
        return result.stdout.split()

    def test_bash(self):
        self.assertEqual(self.complete("lodge sta"), ["stats"])
        self.assertEqual(self.complete("lodge completion "), ["bash", "zsh", "fish"])
        self.assertEqual(self.complete("lodge run --eng"), ["--engine"])
        self.assertEqual(self.complete("lodge run --engine tr"), ["translate"])
        self.assertEqual(self.complete("lodge run --engine = tr"), ["translate"])
        self.assertEqual(self.complete("lodge run --engine ="), ["auto", "translate", "interpret", "kvm"])
        self.assertEqual(self.complete("lodge run --kernel %s/ker" % self.folder), [self.kernel])
        self.assertEqual(self.complete("lodge run --cpus "), [])
        self.assertEqual(self.complete("lodge help ver"), ["version"])
        self.assertEqual(self.complete("lodge stop "), [])
        self.detach("web")
        self.assertEqual(self.complete("lodge stop "), ["web"])

    @needs("zsh")
    def test_zsh(self):
        script = self.lodge("completion", "zsh").stdout
        path = os.path.join(self.folder, "_lodge")
        with open(path, "w") as file:
            file.write(script)
        self.assertEqual(subprocess.run(["zsh", "-n", path], capture_output=True, text=True).stderr, "")

    @needs("fish")
    def test_fish(self):
        self.detach("web")
        source = "lodge completion fish | source; complete -C '%s'"

        def complete(line):
            result = subprocess.run(["fish", "--no-config", "-c", source % line], env=dict(self.env, HOME=self.folder),
                                    capture_output=True, text=True, timeout=20)
            self.assertEqual(result.stderr, "")
            return [l.split("\t")[0] for l in result.stdout.split("\n") if l]

        self.assertEqual(complete("lodge sta"), ["stats"])
        self.assertEqual(complete("lodge run --engine tr"), ["translate"])
        self.assertEqual(complete("lodge stop "), ["web"])

    @needs("mandoc")
    def test_manual_page_is_clean(self):
        result = subprocess.run(["mandoc", "-Tlint", "-W", "warning"], input=self.lodge("help", "--man").stdout,
                                capture_output=True, text=True)
        # The page has no date: the same source gives the same page.
        complaints = [l for l in (result.stdout + result.stderr).splitlines() if "missing date" not in l]
        self.assertEqual(complaints, [])

    @needs("groff")
    def test_manual_page_shows_all(self):
        result = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-P-cbou"], input=self.lodge("help", "--man").stdout,
                                capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        for text in ["lodge run [OPTION]...", "-m, --memory SIZE", "EXIT STATUS", "Ctrl-]", "'console=ttyS0 root=/dev/vda rw'"]:
            self.assertIn(text, result.stdout)


if __name__ == "__main__":
    unittest.main()
