// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "cli/completion.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/man_page.h"
#include "cli/monitor_keys.h"
#include "cli/verbs.h"

namespace lodge::cli {
namespace {

TEST(Layout, Wraps) {
  EXPECT_EQ(wrapped("one two three", 2, 9), "  one two\n  three\n");
  EXPECT_EQ(wrapped("averyverylongword x", 0, 5), "averyverylongword\nx\n");
  EXPECT_EQ(wrapped("a\n\nb", 1, 10), " a\n\n b\n");
  EXPECT_EQ(wrapped("", 4, 10), "");
}

TEST(Layout, Defines) {
  EXPECT_EQ(definition("-x", "does x", 10, 40), "  -x      does x\n");
  EXPECT_EQ(definition("--long-option", "text", 10, 40), "  --long-option\n          text\n");
}

TEST(Layout, AlignsColumns) {
  EXPECT_EQ(columns({{"NAME", "N"}, {"a", "10"}, {"long", "1"}}, {1}), "NAME   N\na     10\nlong   1\n");
  EXPECT_EQ(columns({}), "");
}

TEST(ManPage, EscapesRoff) {
  EXPECT_EQ(roffEscaped(".x"), "\\&.x");
  EXPECT_EQ(roffEscaped("'a' \\n -b"), "\\&\\(aqa\\(aq \\en \\-b");
}

TEST(ManPage, HasEveryVerbAndOption) {
  std::string page = manPage();
  for (const VerbSpec& verb : allVerbs()) {
    EXPECT_NE(page.find(".SS \"lodge " + verb.name), std::string::npos) << verb.name;
    for (const OptionSpec& option : verb.options) {
      EXPECT_NE(page.find(roffEscaped("--" + option.name)), std::string::npos) << option.name;
    }
  }
}

TEST(Completion, HasEveryVerbAndOption) {
  for (const std::string& script : {bashCompletion(), zshCompletion(), fishCompletion()}) {
    for (const VerbSpec& verb : allVerbs()) {
      EXPECT_NE(script.find(verb.name), std::string::npos) << verb.name;
      for (const OptionSpec& option : verb.options)
        EXPECT_NE(script.find(option.name), std::string::npos) << option.name;
    }
  }
}

using Events = std::vector<MonitorKeys::Event>;

TEST(MonitorKeys, TakesKeysOut) {
  MonitorKeys keys;
  EXPECT_EQ(keys.feed("ab\x1dqcd"), (Events{{.data = "ab"}, {.key = 'q'}, {.data = "cd"}}));
  EXPECT_EQ(keys.feed("\x1d"), Events{});
  EXPECT_EQ(keys.feed("s"), (Events{{.key = 's'}}));
  EXPECT_EQ(keys.feed("x\x1d\x1dy"), (Events{{.data = "x\x1dy"}}));
  EXPECT_EQ(keys.feed("\x1d\x1d\x1d"), (Events{{.data = "\x1d"}}));
  EXPECT_EQ(keys.feed("\x1dz"), (Events{{.data = "\x1dz"}})) << "the third one opened the menu";
}

TEST(ExitStatus, IsEvenUnlessTheGuestsOwn) {
  using control::EndRecord;
  for (MachineEnd end : {MachineEnd::poweredOff, MachineEnd::resetNoReboot, MachineEnd::crashed, MachineEnd::killed}) {
    EXPECT_EQ(exitStatusOf(EndRecord{end, 0, 0}) % 2, 0);
  }
  EXPECT_EQ(exitStatusOf(EndRecord{MachineEnd::debugExit, 0x101, 0}), 1);
  EXPECT_EQ(exitStatusOf(EndRecord{MachineEnd::debugExit, 33, 0}), 33);
  EXPECT_EQ(exitStatusOf(Error(ErrorKind::notFound, "")), 2);
  EXPECT_EQ(exitStatusOf(Error(ErrorKind::corrupt, "")), 2);
  EXPECT_EQ(exitStatusOf(Error(ErrorKind::io, "")), 4);
}

}  // namespace
}  // namespace lodge::cli
