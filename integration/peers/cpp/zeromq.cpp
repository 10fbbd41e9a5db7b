// ZeroMQ: a PAIR socket at each end of an ipc:// address. zeromq server|client SIZE NANOSECONDS ADDRESS
#include "pair.h"
#include <zmq.h>

static void check(int rc, const char *what) {
  if (rc < 0) {
    fprintf(stderr, "zeromq: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
  }
}

int main(int, char **argv) {
  std::string role = argv[1];
  size_t size = strtoull(argv[2], nullptr, 10);
  int64_t each = strtoll(argv[3], nullptr, 10);
  endWithParent();
  void *ctx = zmq_ctx_new(), *s = zmq_socket(ctx, ZMQ_PAIR);
  int hwm = std::max<size_t>(4, std::min<size_t>(1024, (4 << 20) / size));
  zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm);
  zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof hwm);
  zmq_msg_t m;
  zmq_msg_init(&m);
  if (role == "server") {
    std::string addr = "ipc:///tmp/bhome-peers-zmq-" + std::to_string(getpid());
    check(zmq_bind(s, addr.c_str()), "bind");
    printf("ready %s\n", addr.c_str());
    fflush(stdout);
    for (;;) {
      check(zmq_msg_recv(&m, s, 0), "receive");
      auto *b = (uint8_t *)zmq_msg_data(&m);
      touch(b, zmq_msg_size(&m));
      if (b[0] != kSink) check(zmq_send(s, b, zmq_msg_size(&m), 0), "send");
    }
  }
  check(zmq_connect(s, argv[4]), "connect");
  return measure(
      size, each, [&](const uint8_t *b, size_t n) { check(zmq_send(s, b, n, 0), "send"); },
      [&] {
        check(zmq_msg_recv(&m, s, 0), "receive");
        touch((uint8_t *)zmq_msg_data(&m), zmq_msg_size(&m));
      });
}
