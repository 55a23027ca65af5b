// SPDX-License-Identifier: Apache-2.0
#include "control/runtime_folder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "control/machine_name.h"

namespace lodge::control {
namespace {

namespace fs = std::filesystem;

class RuntimeFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/lodge-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root_ = name;
    folder_.emplace(*RuntimeFolder::openAt(root_ + "/lodge"));
  }
  void TearDown() override { fs::remove_all(root_); }

  /// A process that claims a machine and then sleeps, or ends without a word.
  pid_t childWith(const std::string& name, bool sleep) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    pid_t pid = ::fork();
    if (pid == 0) {
      auto folder = RuntimeFolder::openAt(root_ + "/lodge");
      auto machine = folder->claim(name);
      [[maybe_unused]] ssize_t n = ::write(ready[1], machine ? "y" : "n", 1);
      while (sleep) ::pause();
      ::_exit(0);
    }
    ::close(ready[1]);
    char answer = 0;
    EXPECT_EQ(::read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    ::close(ready[0]);
    return pid;
  }

  std::string root_;
  std::optional<RuntimeFolder> folder_;
};

TEST(MachineName, Rules) {
  for (const char* good : {"a", "vm1", "Web-2.test_x", "0"}) EXPECT_TRUE(checkMachineName(good)) << good;
  for (const char* bad : {"", ".", "..", ".lock", "-x", "a/b", "a b", "\xc3\xa9", "a\n"})
    EXPECT_FALSE(checkMachineName(bad)) << bad;
  EXPECT_TRUE(checkMachineName(std::string(48, 'a')));
  EXPECT_FALSE(checkMachineName(std::string(49, 'a')));
}

TEST_F(RuntimeFolderTest, ClaimsAndRemoves) {
  {
    auto machine = folder_->claim("web");
    ASSERT_TRUE(machine) << machine.error().message();
    EXPECT_EQ(machine->name(), "web");
    ASSERT_TRUE(machine->write(file::kConfig, "{\"cpus\":3}"));
    auto all = folder_->machines();
    ASSERT_EQ(all->size(), 1u);
    EXPECT_TRUE(all->front().running);
    EXPECT_EQ(all->front().process, thisProcess());
    EXPECT_EQ(all->front().config["cpus"], 3);
  }
  EXPECT_FALSE(fs::exists(root_ + "/lodge/web"));
  EXPECT_EQ(folder_->machines()->size(), 0u);
}

TEST_F(RuntimeFolderTest, NamesAreUnique) {
  auto first = folder_->claim("web");
  auto second = folder_->claim("web");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), ErrorKind::alreadyExists);
  EXPECT_EQ(second.error().message(),
            fmt::format("the name 'web' is taken by a running machine (process {})", ::getpid()));
  EXPECT_TRUE(folder_->claim("other"));
}

TEST_F(RuntimeFolderTest, GeneratesNames) {
  auto first = folder_->claim("");
  auto second = folder_->claim("");
  EXPECT_EQ(first->name(), "vm1");
  EXPECT_EQ(second->name(), "vm2");
}

TEST_F(RuntimeFolderTest, RefusesBadNames) {
  EXPECT_EQ(folder_->claim("../x").error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(folder_->find("../x").error().kind(), ErrorKind::invalidArgument);
}

TEST_F(RuntimeFolderTest, SeesAnotherProcessAndCleansUpAfterItsDeath) {
  pid_t pid = childWith("web", true);
  auto found = folder_->find("web");
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->running);
  EXPECT_EQ(found->process.pid, pid);
  auto pidfd = openProcess(found->process);
  ASSERT_TRUE(pidfd);
  EXPECT_FALSE(waitForProcessEnd(pidfd->get(), 0));
  EXPECT_EQ(folder_->remove("web").error().kind(), ErrorKind::busy);
  EXPECT_TRUE(signalProcess(pidfd->get(), SIGKILL));
  EXPECT_TRUE(waitForProcessEnd(pidfd->get(), 5000));
  ::waitpid(pid, nullptr, 0);
  EXPECT_EQ(openProcess(found->process).error().kind(), ErrorKind::notFound);
  EXPECT_TRUE(fs::exists(root_ + "/lodge/web"));
  EXPECT_EQ(folder_->machines()->size(), 0u);
  EXPECT_FALSE(fs::exists(root_ + "/lodge/web"));
}

TEST_F(RuntimeFolderTest, TakesOverTheNameOfADeadMachine) {
  ::waitpid(childWith("web", false), nullptr, 0);
  EXPECT_TRUE(folder_->claim("web"));
}

TEST_F(RuntimeFolderTest, KeepsAnEndedMachineUntilRemoved) {
  {
    auto machine = folder_->claim("web");
    ASSERT_TRUE(machine->keep({MachineEnd::crashed, 0, ::time(nullptr)}, "last words"));
  }
  auto found = folder_->find("web");
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->running);
  EXPECT_EQ(found->end->end, MachineEnd::crashed);
  EXPECT_EQ(folder_->consoleOf("web"), "last words");
  EXPECT_EQ(folder_->claim("")->name(), "vm1");
  EXPECT_TRUE(folder_->remove("web"));
  EXPECT_EQ(folder_->find("web").error().kind(), ErrorKind::notFound);
}

TEST_F(RuntimeFolderTest, ForgetsAnEndedMachineAfterADay) {
  {
    auto machine = folder_->claim("web");
    ASSERT_TRUE(machine->keep({MachineEnd::poweredOff, 0, ::time(nullptr) - 86500}, ""));
  }
  EXPECT_EQ(folder_->machines()->size(), 0u);
}

TEST_F(RuntimeFolderTest, SuggestsANearName) {
  auto machine = folder_->claim("database");
  EXPECT_EQ(folder_->find("datebase").error().hint(), "did you mean 'database'?");
  EXPECT_EQ(folder_->find("zzz").error().hint(), "'lodge ps --all' lists them");
}

TEST_F(RuntimeFolderTest, SocketsWorkUnderAnyPath) {
  std::string deep = root_;
  for (int i = 0; i < 8; ++i) {
    deep += "/a-rather-long-folder-name";
    ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
  }
  auto folder = RuntimeFolder::openAt(deep + "/lodge");
  auto machine = folder->claim("web");
  auto listener = machine->listen();
  ASSERT_TRUE(listener) << listener.error().message();
  EXPECT_TRUE(folder->connect("web"));
  EXPECT_FALSE(folder->connect("nobody"));
}

TEST_F(RuntimeFolderTest, RefusesAFolderOpenToOthers) {
  ::mkdir((root_ + "/open").c_str(), 0700);
  ::chmod((root_ + "/open").c_str(), 0755);
  EXPECT_EQ(RuntimeFolder::openAt(root_ + "/open").error().kind(), ErrorKind::permissionDenied);
  ::symlink((root_ + "/lodge").c_str(), (root_ + "/link").c_str());
  EXPECT_FALSE(RuntimeFolder::openAt(root_ + "/link"));
}

TEST_F(RuntimeFolderTest, SurvivesGarbage) {
  fs::create_directory(root_ + "/lodge/junk");
  std::ofstream(root_ + "/lodge/file") << "x";
  fs::create_directory(root_ + "/lodge/bad");
  std::ofstream(root_ + "/lodge/bad/end.json") << "{\"end\":";
  std::ofstream(root_ + "/lodge/bad/config.json") << "\xff";
  auto all = folder_->machines();
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), 0u);
  EXPECT_FALSE(fs::exists(root_ + "/lodge/junk"));
}

TEST(ProcessId, OfAStranger) {
  EXPECT_EQ(openProcess({::getpid(), 1}).error().kind(), ErrorKind::notFound);
  EXPECT_EQ(openProcess({0, 0}).error().kind(), ErrorKind::notFound);
  EXPECT_TRUE(openProcess(thisProcess()));
}

}  // namespace
}  // namespace lodge::control
