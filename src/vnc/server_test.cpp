// SPDX-License-Identifier: Apache-2.0
#include "vnc/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>

namespace lodge::vnc {
namespace {

struct NoDisplay : Display {
  bool refresh() override { return true; }
  const Screen& screen() const override { return picture; }
  void key(std::uint32_t, bool) override {}
  void pointer(unsigned, unsigned, unsigned) override {}
  Screen picture;
};

class VncServerTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/lodge-vnc-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    address_.socket = folder_ / "vnc";
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    loop_ = std::move(*loop);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Result<std::unique_ptr<Server>> start() { return Server::create(*loop_, display_, "test", address_); }

  std::filesystem::path folder_;
  Address address_;
  std::unique_ptr<EventLoop> loop_;
  NoDisplay display_;
};

TEST_F(VncServerTest, TheSocketOfAKilledMachineGivesWay) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  address_.socket.copy(name.sun_path, sizeof name.sun_path - 1);
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  ::close(fd);
  ASSERT_TRUE(std::filesystem::exists(address_.socket)) << "left behind";
  auto server = start();
  ASSERT_TRUE(server) << server.error().message();
  server->reset();
  EXPECT_FALSE(std::filesystem::exists(address_.socket));
}

TEST_F(VncServerTest, ASocketInUseAndOtherFilesStay) {
  auto server = start();
  ASSERT_TRUE(server);
  EXPECT_EQ(start().error().kind(), ErrorKind::busy);
  server->reset();
  int fd = ::open(address_.socket.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  ::close(fd);
  EXPECT_EQ(start().error().kind(), ErrorKind::busy);
  EXPECT_TRUE(std::filesystem::is_regular_file(address_.socket));
}

}  // namespace
}  // namespace lodge::vnc
