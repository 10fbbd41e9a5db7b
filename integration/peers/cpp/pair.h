// What the C++ peers share: the protocol with the parent, and the measurement. See child.go, which does the same.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

enum : uint8_t { kEcho = 0, kLast = 1, kSink = 2 };

inline volatile uint64_t sink;

inline void touch(const uint8_t *b, size_t n) {
  uint64_t sum = 0, w;
  for (size_t i = 0; i + 8 <= n; i += 64) {
    memcpy(&w, b + i, 8);
    sum += w;
  }
  sink = sum;
}

// A child ends when its standard input does.
inline void endWithParent() {
  std::thread([] {
    char c;
    while (read(0, &c, 1) > 0) {
    }
    _exit(0);
  }).detach();
}

inline int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// send and recv throw or exit on failure.
template <class Send, class Recv> int measure(size_t size, int64_t each, Send send, Recv recv) {
  std::vector<uint8_t> payload(size);
  auto trip = [&] {
    send(payload.data(), size);
    recv();
  };
  for (int64_t end = now() + each / 10; now() < end;) trip();
  std::vector<int64_t> ns;
  int64_t begin = now(), last = begin;
  while (last - begin < each) {
    trip();
    int64_t t = now();
    ns.push_back(t - last);
    last = t;
  }
  std::sort(ns.begin(), ns.end());
  auto at = [&](double q) { return (long long)ns[std::min(ns.size() - 1, size_t(q * ns.size()))]; };
  payload[0] = kSink;
  begin = now();
  long long n = 0;
  size_t burst = std::max<size_t>(1, std::min<size_t>(256, (1 << 22) / size));
  while (now() - begin < each)
    for (size_t i = 0; i < burst; i++, n++) send(payload.data(), size);
  payload[0] = kLast;
  trip();
  double rate = (n + 1) / ((now() - begin) / 1e9);
  printf("{\"P50\":%lld,\"P99\":%lld,\"P999\":%lld,\"Trips\":%zu,\"Rate\":%f}\n", at(0.5), at(0.99), at(0.999), ns.size(), rate);
  fflush(stdout);
  pause();
  return 0;
}
