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
    Status watched = loop.watch(event.get(), EPOLLIN, [this, ring, queue](std::uint32_t) {
      Bell& bell = bells_[queue];
      std::lock_guard ringing(bell.ringing);
      eventfd_t count = 0;
      if (::eventfd_read(bell.event.get(), &count) != 0 || !bell.live) return;
      doorbells_.noteRing();
      ring(queue);
    });
    if (watched) bells_[queue].event = std::move(event);
  }
}

bool QueueDoorbells::ringAgain(unsigned queue) {
  Bell& bell = bells_[queue];
  return bell.live && bell.event && ::eventfd_write(bell.event.get(), 1) == 0;
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
  Bell& bell = bells_[queue];
  {
    std::lock_guard lock(mutex_);
    bell.live = live;
    updateLocked(queue);
  }
  if (live || !bell.event) return;
  std::lock_guard ringing(bell.ringing);
  eventfd_t missed = 0;
  if (::eventfd_read(bell.event.get(), &missed) != 0) return;  // there was none
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
