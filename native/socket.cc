// Unix sockets: descriptors that they carry, and who is at their other end (unix(7), cmsg(3)); connections by TCP.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "call.h"

namespace moor {
namespace {

// The kernel's SCM_MAX_FD: with room for that many, nothing is cut off and every descriptor received can be closed.
constexpr size_t kMostDescriptors = 253;

napi_value listen_unix(Call& call) {
  const std::string path = call.text(0);
  const int backlog = call.integer(1);
  if (call.rejected()) return nullptr;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // An empty name would make the kernel choose an abstract address.
  if (path.empty()) return call.fail_with(EINVAL, "bind");
  if (path.size() >= sizeof address.sun_path) return call.fail_with(ENAMETOOLONG, "bind", path);
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return call.fail("socket");
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    const int number = errno;
    close(fd);
    return call.fail_with(number, "bind", path);
  }
  if (listen(fd, backlog) < 0) {
    const int number = errno;
    close(fd);
    unlink(path.c_str());
    return call.fail_with(number, "listen", path);
  }
  return call.number(fd);
}

napi_value accept_unix(Call& call) {
  const int fd = call.integer(0);
  if (call.rejected()) return nullptr;
  const int peer = TEMP_FAILURE_RETRY(accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (peer >= 0) return call.number(peer);
  if (errno == EAGAIN) return nullptr;
  return call.fail("accept4");
}

napi_value receive_fd(Call& call) {
  const int socket = call.integer(0);
  if (call.rejected()) return nullptr;
  // runc sends the terminal's name along with the descriptor; what else is in the message is of no interest.
  char payload[4096];
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))];
  iovec piece = {payload, sizeof payload};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (TEMP_FAILURE_RETRY(recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) < 0) {
    if (errno == EAGAIN) return nullptr;
    return call.fail("recvmsg");
  }
  int received[kMostDescriptors];
  size_t count = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t here = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < here && count < kMostDescriptors; i++) {
      memcpy(&received[count++], CMSG_DATA(part) + i * sizeof(int), sizeof(int));
    }
  }
  if (count == 1 && (message.msg_flags & MSG_CTRUNC) == 0) return call.number(received[0]);
  for (size_t i = 0; i < count; i++) close(received[i]);
  return call.fail_with(EBADMSG, "recvmsg");
}

napi_value send_fd(Call& call) {
  const int socket = call.integer(0);
  const int fd = call.integer(1);
  if (call.rejected()) return nullptr;
  // A stream socket carries ancillary data only along with at least one byte (unix(7)).
  char payload = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece = {&payload, 1};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(part), &fd, sizeof(int));
  if (TEMP_FAILURE_RETRY(sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0) return call.fail("sendmsg");
  return nullptr;
}

napi_value socket_pair(Call& call) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) return call.fail("socketpair");
  return call.pair("first", ends[0], "second", ends[1]);
}

napi_value peer_pid(Call& call) {
  const int fd = call.integer(0);
  if (call.rejected()) return nullptr;
  ucred peer = {};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return call.fail("getsockopt");
  return call.number(peer.pid);
}

napi_value send_datagram(Call& call) {
  const std::string path = call.text(0);
  const std::string payload = call.text(1);
  if (call.rejected()) return nullptr;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty()) return call.fail_with(EINVAL, "sendto");
  if (path.size() >= sizeof address.sun_path) return call.fail_with(ENAMETOOLONG, "sendto", path);
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  socklen_t length = sizeof address;
  if (path[0] == '@') {
    // An abstract name begins with a zero byte and ends with its last character: its length tells, not a terminator.
    address.sun_path[0] = '\0';
    length = offsetof(sockaddr_un, sun_path) + path.size();
  }
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return call.fail("socket");
  const auto sent = TEMP_FAILURE_RETRY(sendto(fd, payload.data(), payload.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                                              reinterpret_cast<const sockaddr*>(&address), length));
  const int number = errno;
  close(fd);
  if (sent < 0) return call.fail_with(number, "sendto", path);
  return nullptr;
}

napi_value start_connect(Call& call) {
  const std::string host = call.text(0);
  const int port = call.integer(1);
  if (call.rejected()) return nullptr;
  sockaddr_storage address = {};
  socklen_t length = 0;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (port < 1 || port > 65535) return call.fail_with(EINVAL, "connect", host);
  const auto wire_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = wire_port;
    length = sizeof *v4;
  } else if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = wire_port;
    length = sizeof *v6;
  } else {
    return call.fail_with(EINVAL, "connect", host);
  }
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return call.fail("socket", host);
  if (TEMP_FAILURE_RETRY(connect(fd, reinterpret_cast<const sockaddr*>(&address), length)) < 0 &&
      errno != EINPROGRESS) {
    const int number = errno;
    close(fd);
    return call.fail_with(number, "connect", host);
  }
  return call.number(fd);
}

napi_value finish_connect(Call& call) {
  const int fd = call.integer(0);
  if (call.rejected()) return nullptr;
  int number = 0;
  socklen_t length = sizeof number;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &length) < 0) return call.fail("getsockopt");
  if (number != 0) return call.fail_with(number, "connect");
  return nullptr;
}

}  // namespace

void define_socket(napi_env env, napi_value exports) {
  define<listen_unix>(env, exports, "listenUnix");
  define<accept_unix>(env, exports, "acceptUnix");
  define<receive_fd>(env, exports, "receiveFd");
  define<send_fd>(env, exports, "sendFd");
  define<socket_pair>(env, exports, "socketPair");
  define<peer_pid>(env, exports, "peerPid");
  define<send_datagram>(env, exports, "sendDatagram");
  define<start_connect>(env, exports, "startConnect");
  define<finish_connect>(env, exports, "finishConnect");
}

}  // namespace moor
