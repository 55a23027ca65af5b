// SPDX-License-Identifier: Apache-2.0
#include "network/capture_stream.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostPending = 4 << 20;

}  // namespace

CaptureStream::CaptureStream(std::string port, std::uint32_t snapLength)
    : port_(std::move(port)), snapLength_(snapLength), pending_(CaptureFormat::header()) {}

void CaptureStream::add(const Port& port, std::span<const std::uint8_t> frame, CaptureFormat::Direction direction) {
  if (!port_.empty() && port.settings().name != port_) return;
  if (pending_.size() + frame.size() > kMostPending) {
    ++left_;
    return;
  }
  auto [it, isNew] = interfaces_.try_emplace(port.id(), static_cast<std::uint32_t>(interfaces_.size()));
  if (isNew) pending_ += CaptureFormat::interface(port.settings().name, snapLength_);
  pending_ += CaptureFormat::packet(it->second, hostUtc(), frame, direction, snapLength_);
}

}  // namespace lodge::network
