// SPDX-License-Identifier: Apache-2.0
#include "virtio/queue_doorbells.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <utility>

namespace lodge::virtio {

QueueDoorbells::QueueDoorbells(Doorbells& doorbells, EventLoop& loop, unsigned queues, unsigned step,
                               std::function<void(unsigned)> ring)
    : doorbells_(doorbells), loop_(loop), step_(step), bells_(queues) {
  for (unsigned queue = 0; queue < queues; ++queue) {
    UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event) continue;  // its notifications are device accesses then
    Status watched = loop.watch(event.get(), EPOLLIN, [this, ring, queue, fd = event.get()](std::uint32_t) {
      eventfd_t count = 0;
      if (::eventfd_read(fd, &count) != 0) return;
      doorbells_.noteRing();
      ring(queue);
    });
    if (watched) bells_[queue].event = std::move(event);
  }
}

QueueDoorbells::~QueueDoorbells() {
  place(std::nullopt);
  for (const Bell& bell : bells_) {
    if (bell.event) loop_.unwatch(bell.event.get());
  }
}

void QueueDoorbells::place(std::optional<std::uint64_t> address) {
  std::lock_guard lock(mutex_);
  address_ = address;
  for (unsigned queue = 0; queue < bells_.size(); ++queue) updateLocked(queue);
}

void QueueDoorbells::setLive(unsigned queue, bool live) {
  std::lock_guard lock(mutex_);
  bells_[queue].live = live;
  updateLocked(queue);
}

void QueueDoorbells::updateLocked(unsigned queue) {
  Bell& bell = bells_[queue];
  std::optional<std::uint64_t> wanted;
  if (bell.live && bell.event && address_) wanted = *address_ + std::uint64_t{queue} * step_;
  if (wanted == bell.at) return;
  if (bell.at) doorbells_.remove(*bell.at);
  if (wanted) doorbells_.add(*wanted, bell.event.get());
  bell.at = wanted;
}

}  // namespace lodge::virtio
