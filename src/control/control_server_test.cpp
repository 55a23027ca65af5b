// SPDX-License-Identifier: Apache-2.0
#include "control/control_server.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <thread>

#include "control/console_frames.h"
#include "control/control_client.h"
#include "control/fake_machine.h"
#include "control/runtime_folder.h"

namespace lodge::control {
namespace {

/// A machine process in a thread: loop, fake machine, session, hub, server.
class ControlServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/lodge-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root_ = name;
    folder_.emplace(*RuntimeFolder::openAt(root_));
    machineFolder_.emplace(*folder_->claim("web"));
    loop_ = *EventLoop::create();
    hub_ = std::make_unique<ConsoleHub>(*loop_);
    MachineConfig config;
    config.name = "web";
    config.cpus = 3;
    machine_ = std::make_unique<FakeMachine>(*loop_, config, *hub_);
    hub_->connect(*machine_);
    session_ = std::make_unique<MachineSession>(*loop_, *machine_, config);
    server_ = std::make_unique<ControlServer>(*loop_, *session_, *hub_, *machineFolder_->listen());
    ASSERT_TRUE(server_->start());
    machine_->start();
    thread_ = std::thread([this] { EXPECT_TRUE(loop_->run()); });
  }
  void TearDown() override {
    loop_->stop();
    thread_.join();
    server_.reset();
    std::filesystem::remove_all(root_);
  }
  ControlClient client() { return *ControlClient::connect(*folder_, "web"); }
  UniqueFd rawClient() { return *folder_->connect("web"); }

  /// Attaches, and returns the connection.
  UniqueFd attach() {
    ControlClient c = client();
    EXPECT_TRUE(c.call({.kind = RequestKind::consoleAttach}));
    std::string rest;
    UniqueFd fd = c.takeConnection(rest);
    frames_ = FrameReader();
    frames_.add(rest);
    return fd;
  }
  /// Output frames' bytes until `text` has come; empty string at the end of the stream or after five seconds.
  std::string readUntil(int fd, const std::string& text) {
    std::string all;
    for (;;) {
      while (auto frame = frames_.next()) {
        if (frame->kind == FrameKind::output) all += frame->payload;
        if (frame->kind == FrameKind::end) all += "<" + frame->payload + ">";
        if (auto skipped = parseSkipped(*frame)) skipped_ += *skipped;
      }
      if (all.find(text) != std::string::npos) return all;
      pollfd entry{fd, POLLIN, 0};
      char buffer[4096];
      ssize_t n = ::poll(&entry, 1, 5000) > 0 ? ::recv(fd, buffer, sizeof buffer, 0) : 0;
      if (n <= 0) return {};
      frames_.add(std::string_view(buffer, static_cast<std::size_t>(n)));
    }
  }
  void type(int fd, const std::string& text) {
    std::string bytes = formatFrames(FrameKind::input, text);
    EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  std::string root_;
  std::optional<RuntimeFolder> folder_;
  std::optional<MachineFolder> machineFolder_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<ConsoleHub> hub_;
  std::unique_ptr<FakeMachine> machine_;
  std::unique_ptr<MachineSession> session_;
  std::unique_ptr<ControlServer> server_;
  std::thread thread_;
  FrameReader frames_;
  std::uint64_t skipped_ = 0;
};

TEST_F(ControlServerTest, TellsItsState) {
  auto state = client().call({.kind = RequestKind::state});
  ASSERT_TRUE(state);
  EXPECT_EQ((*state)["name"], "web");
  EXPECT_EQ((*state)["state"], "running");
  EXPECT_EQ((*state)["engine"], "fake");
  EXPECT_EQ((*state)["cpus"], 3);
  EXPECT_EQ((*state)["pid"], ::getpid());
}

TEST_F(ControlServerTest, PausesAndResumes) {
  ControlClient c = client();
  ASSERT_TRUE(c.call({.kind = RequestKind::pause}));
  EXPECT_TRUE(machine_->paused);
  EXPECT_EQ((*c.call({.kind = RequestKind::state}))["state"], "paused");
  ASSERT_TRUE(c.call({.kind = RequestKind::resume}));
  EXPECT_FALSE(machine_->paused);
}

TEST_F(ControlServerTest, AResetResumesWhatAPersonPaused) {
  ControlClient c = client();
  ASSERT_TRUE(c.call({.kind = RequestKind::pause}));
  ASSERT_TRUE(c.call({.kind = RequestKind::reset}));
  EXPECT_FALSE(machine_->paused);
  EXPECT_EQ((*c.call({.kind = RequestKind::state}))["state"], "running");
}

TEST_F(ControlServerTest, DoesNotSaveForAClientThatHasGivenUp) {
  Request request{.id = 1, .kind = RequestKind::save, .text = "/file"};
  std::promise<void> awake;
  loop_->post([&awake] { awake.get_future().wait(); });  // it does not answer for a while
  {
    UniqueFd gone = rawClient();
    std::string line = formatRequest(request);
    ASSERT_EQ(::send(gone.get(), line.data(), line.size(), MSG_NOSIGNAL), static_cast<ssize_t>(line.size()));
  }
  awake.set_value();
  ControlClient later = client();
  ASSERT_TRUE(later.call({.kind = RequestKind::state}));
  EXPECT_EQ(machine_->saves, 0);
  ASSERT_TRUE(later.call(request));
  EXPECT_EQ(machine_->saves, 1);
}

TEST_F(ControlServerTest, WaitersHearOfTheEnd) {
  ControlClient waiter = client();
  std::thread later([&] { ASSERT_TRUE(client().call({.kind = RequestKind::powerButton})); });
  auto end = waiter.call({.kind = RequestKind::wait});
  later.join();
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["end"], "powered-off");
  ControlClient late = client();
  EXPECT_EQ((*late.call({.kind = RequestKind::wait}))["end"], "powered-off");
  EXPECT_EQ(late.call({.kind = RequestKind::reset}).error().kind(), ErrorKind::notFound);
}

TEST_F(ControlServerTest, StopTurnsADeafGuestOff) {
  UniqueFd fd = attach();
  type(fd.get(), "deaf\rdone\r");
  readUntil(fd.get(), "done");
  ControlClient c = client();
  ASSERT_TRUE(c.call({.kind = RequestKind::pause}));
  ASSERT_TRUE(c.call({.kind = RequestKind::stop, .graceSeconds = 1}));
  EXPECT_EQ((*c.call({.kind = RequestKind::state}))["state"], "stopping");
  auto end = c.call({.kind = RequestKind::wait});
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["end"], "killed");
  EXPECT_EQ(machine_->powerButtons, 1);
}

TEST_F(ControlServerTest, CountsThings) {
  auto stats = client().call({.kind = RequestKind::stats});
  ASSERT_TRUE(stats);
  EXPECT_EQ((*stats)["counters"]["fake.lines"], 0);
  EXPECT_GT((*stats)["counters"]["process.residentBytes"], 100000);
}

TEST_F(ControlServerTest, SeveralConsolesSeeTheSame) {
  UniqueFd first = attach();
  ASSERT_NE(readUntil(first.get(), "fake guest"), "");
  FrameReader firstFrames = frames_;
  UniqueFd second = attach();
  EXPECT_NE(readUntil(second.get(), "fake guest"), "") << "the past is shown at attach";
  type(first.get(), "hello\r");
  EXPECT_NE(readUntil(second.get(), "hello"), "");
  std::swap(frames_, firstFrames);
  EXPECT_NE(readUntil(first.get(), "hello"), "");
  type(first.get(), "crash\r");
  EXPECT_NE(readUntil(first.get(), R"("end":"crashed")"), "");
}

TEST_F(ControlServerTest, InputWaitsForTheGuest) {
  UniqueFd fd = attach();
  std::string text = "nap\r" + std::string(200000, 'x') + "END";
  std::thread writer([&] {
    type(fd.get(), text.substr(0, 60000)), type(fd.get(), text.substr(60000, 60000)),
        type(fd.get(), text.substr(120000, 60000)), type(fd.get(), text.substr(180000));
  });
  std::string all = readUntil(fd.get(), "END");
  writer.join();
  EXPECT_EQ(std::count(all.begin(), all.end(), 'x'), 200000);
}

TEST_F(ControlServerTest, AClientThatDoesNotReadHarmsNobody) {
  UniqueFd lazy = attach();
  FrameReader lazyFrames = frames_;
  UniqueFd busy = attach();
  type(busy.get(), "quiet\rflood 200000\rcrash\r");
  EXPECT_NE(readUntil(busy.get(), "crashed"), "");
  std::swap(frames_, lazyFrames);
  skipped_ = 0;
  std::string all = readUntil(lazy.get(), "crashed");
  EXPECT_EQ(all.substr(0, 11), "fake guest:");
  EXPECT_GT(skipped_, 500000u);
}

TEST_F(ControlServerTest, RefusesGarbageAndGoesOn) {
  UniqueFd fd = rawClient();
  std::string bytes = "rubbish\n{\"id\":5,\"request\":\"state\"}\n";
  ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  LineReader lines(kMaxLineLength);
  std::vector<std::string> answers;
  while (answers.size() < 2) {
    char buffer[4096];
    ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
    ASSERT_GT(n, 0);
    lines.add(std::string_view(buffer, static_cast<std::size_t>(n)));
    while (auto line = lines.next()) answers.push_back(*line);
  }
  EXPECT_EQ(parseReply(answers[0]).error().kind(), ErrorKind::corrupt);
  EXPECT_TRUE(parseReply(answers[1]));
}

TEST_F(ControlServerTest, AnEndlessLineEndsTheConnection) {
  UniqueFd fd = rawClient();
  std::string bytes(200000, 'a');
  ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0;)
    answer.append(buffer, static_cast<std::size_t>(n));
  EXPECT_TRUE(client().call({.kind = RequestKind::state}));
}

TEST_F(ControlServerTest, TurnsAwayTooManyClients) {
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < ControlServer::kMaxClients; ++i) clients.push_back(rawClient());
  auto tooMuch = client().call({.kind = RequestKind::state});
  EXPECT_EQ(tooMuch.error().kind(), ErrorKind::io);
  clients.clear();
  for (int i = 0; i < 100; ++i) {
    if (client().call({.kind = RequestKind::state})) return;
    ::usleep(10000);
  }
  FAIL() << "no room after the clients left";
}

TEST_F(ControlServerTest, FollowsTheWindow) {
  std::atomic<int> columns{0};
  loop_->post([&] { hub_->onResize = [&](WindowSize window) { columns = window.columns; }; });
  ControlClient c = client();
  ASSERT_TRUE(c.call({.kind = RequestKind::consoleAttach, .window = {132, 50}}));
  std::string rest;
  UniqueFd fd = c.takeConnection(rest);
  std::string bytes = formatWindow({100, 30});
  ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  for (int i = 0; i < 500 && columns != 100; ++i) ::usleep(10000);
  EXPECT_EQ(columns, 100);
}

}  // namespace
}  // namespace lodge::control
