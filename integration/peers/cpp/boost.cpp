// boost::interprocess: a message_queue each way. boost server|client SIZE NANOSECONDS NAME
#include "pair.h"
#include <boost/interprocess/ipc/message_queue.hpp>
#include <csignal>
#include <memory>

namespace ipc = boost::interprocess;

int main(int, char **argv) {
  std::string role = argv[1];
  size_t size = strtoull(argv[2], nullptr, 10);
  int64_t each = strtoll(argv[3], nullptr, 10);
  size_t depth = std::max<size_t>(4, std::min<size_t>(1024, (4 << 20) / size));
  endWithParent();
  std::vector<uint8_t> in(size);
  ipc::message_queue::size_type got;
  unsigned priority;
  if (role == "server") {
    std::string name = "bhome-peers-" + std::to_string(getpid());
    static std::string there, back; // for the handler
    there = name + "-there", back = name + "-back";
    ipc::message_queue to(ipc::create_only, there.c_str(), depth, size), from(ipc::create_only, back.c_str(), depth, size);
    printf("ready %s\n", name.c_str());
    fflush(stdout);
    for (;;) {
      to.receive(in.data(), size, got, priority);
      touch(in.data(), got);
      if (in[0] == kLast) { // the client has both open: nobody needs the names any more
        ipc::message_queue::remove(there.c_str());
        ipc::message_queue::remove(back.c_str());
      }
      if (in[0] != kSink) from.send(in.data(), got, 0);
    }
  }
  std::string name = argv[4];
  ipc::message_queue to(ipc::open_only, (name + "-there").c_str()), from(ipc::open_only, (name + "-back").c_str());
  return measure(
      size, each, [&](const uint8_t *b, size_t n) { to.send(b, n, 0); },
      [&] {
        from.receive(in.data(), size, got, priority);
        touch(in.data(), got);
      });
}
