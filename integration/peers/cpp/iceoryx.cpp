// Eclipse iceoryx 2: an untyped publisher and subscriber each way, blocks lent and lost to nobody. Receivers spin, or with
// -DBLOCKING wait in a WaitSet. iceoryx broker | server SIZE NANOSECONDS | client SIZE NANOSECONDS NAME
#include "pair.h"
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <csignal>
#include <sys/prctl.h>
#include <sys/wait.h>

// RouDi, iceoryx's daemon, for as long as standard input is open.
static int broker() {
  int out[2];
  if (pipe(out)) return 1;
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out[1], 1);
    dup2(out[1], 2);
    execlp("iox-roudi", "iox-roudi", nullptr);
    _exit(127);
  }
  close(out[1]);
  std::string said;
  for (char c; said.find("RouDi is ready") == std::string::npos && read(out[0], &c, 1) == 1;) said += c;
  std::thread([fd = out[0]] {
    for (char b[4096]; read(fd, b, sizeof b) > 0;) {
    }
  }).detach();
  printf("ready roudi\n");
  fflush(stdout);
  for (char c; read(0, &c, 1) > 0;) {
  }
  kill(pid, SIGTERM);
  return waitpid(pid, nullptr, 0) == pid ? 0 : 1;
}

struct End {
  size_t size;
  iox::popo::UntypedPublisher pub;
  iox::popo::UntypedSubscriber sub;
#ifdef BLOCKING
  iox::popo::WaitSet<> set;
#endif

  // RouDi has 10 chunks of 4 MiB, 30 of 1 MiB, 200 of 128 KiB by default.
  static uint64_t depth(size_t size) { return size > (1 << 20) ? 4 : size > (128 << 10) ? 12 : size > (16 << 10) ? 64 : 256; }
  static iox::popo::PublisherOptions pubOptions() {
    iox::popo::PublisherOptions o;
    o.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
    return o;
  }
  static iox::popo::SubscriberOptions subOptions(size_t size) {
    iox::popo::SubscriberOptions o;
    o.queueCapacity = depth(size);
    o.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
    return o;
  }

  End(size_t size, const char *in, const char *out)
      : size(size), pub({"bhome", "peers", iox::capro::IdString_t(iox::cxx::TruncateToCapacity, out)}, pubOptions()),
        sub({"bhome", "peers", iox::capro::IdString_t(iox::cxx::TruncateToCapacity, in)}, subOptions(size)) {
#ifdef BLOCKING
    set.attachState(sub, iox::popo::SubscriberState::HAS_DATA).or_else([](auto) { _exit(3); });
#endif
    while (sub.getSubscriptionState() != iox::SubscribeState::SUBSCRIBED || !pub.hasSubscribers()) std::this_thread::yield();
  }

  void send(const uint8_t *b, size_t n) {
    for (bool sent = false; !sent;)
      pub.loan(n).and_then([&](auto &chunk) {
        memcpy(chunk, b, n);
        pub.publish(chunk);
        sent = true;
      });
  }

  template <class Read> void recv(Read read) {
    for (bool got = false;;) {
      sub.take().and_then([&](const void *chunk) {
        got = true;
        read(static_cast<const uint8_t *>(chunk));
        sub.release(chunk);
      });
      if (got) return;
#ifdef BLOCKING
      set.wait();
#endif
    }
  }
};

int main(int, char **argv) {
  std::string role = argv[1];
  if (role == "broker") return broker();
  size_t size = strtoull(argv[2], nullptr, 10);
  int64_t each = strtoll(argv[3], nullptr, 10);
  endWithParent();
  const std::string name = "bhome-peers-" + role + "-" + std::to_string(getpid());
  iox::runtime::PoshRuntime::initRuntime(iox::RuntimeName_t(iox::cxx::TruncateToCapacity, name.c_str()));
  if (role == "server") {
    printf("ready roudi\n");
    fflush(stdout);
    End end(size, "there", "back");
    std::vector<uint8_t> answer(size);
    for (;;) {
      bool echo = false;
      end.recv([&](const uint8_t *b) {
        touch(b, size);
        if ((echo = b[0] != kSink)) memcpy(answer.data(), b, size);
      });
      if (echo) end.send(answer.data(), size);
    }
  }
  End end(size, "back", "there");
  return measure(
      size, each, [&](const uint8_t *b, size_t n) { end.send(b, n); },
      [&] { end.recv([&](const uint8_t *b) { touch(b, size); }); });
}
