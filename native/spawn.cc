// Starting a program. Node's own way forks: all page tables of the heap are copied first, and then each page that is touched
// while the child is on its way. Here the child borrows the parent's memory until it is another program (vfork(2)).
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "call.h"

namespace moor {
namespace {

constexpr size_t kStack = 64 << 10;
constexpr int kSignals = 64;

// All that the child needs, made by the parent: the child must not allocate. It writes where it failed.
struct Plan {
  const std::vector<char*>& paths;
  const std::vector<char*>& words;
  const std::vector<char*>& environment;
  const char* folder;
  const std::vector<int>& descriptors;
  int passing;
  const char* syscall;
  int number;
};

// Pointers to the strings, and the null that ends them: what execve(2) wants.
std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> all;
  for (std::string& string : strings) all.push_back(&string[0]);
  all.push_back(nullptr);
  return all;
}

void execute(const Plan& plan, const char** failed) {
  // Ignored signals would stay so in the new program, and a handler of the parent's must never run here.
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal <= kSignals; signal++) sigaction(signal, &standard, nullptr);

  *failed = "chdir";
  if (chdir(plan.folder) < 0) return;
  *failed = "dup2";
  const int count = static_cast<int>(plan.descriptors.size());
  for (int target = 0; target < count; target++) {
    if (dup2(plan.descriptors[static_cast<size_t>(target)], target) < 0) return;
  }
  // Behind those it keeps, and closed by execve(2), which first follows a link to it.
  if (plan.passing >= 0 && dup3(plan.passing, count, O_CLOEXEC) < 0) return;
  *failed = "close_range";
  const int kept = plan.passing >= 0 ? count + 1 : count;
  if (syscall(SYS_close_range, static_cast<unsigned>(kept), ~0U, 0U) < 0) return;

  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  *failed = "execve";
  int number = ENOENT;
  for (size_t place = 0; plan.paths[place] != nullptr; place++) {
    execve(plan.paths[place], plan.words.data(), plan.environment.data());
    // As a shell searches: one that may not be run counts if there is no other.
    if (errno == EACCES) number = EACCES;
    if (errno != EACCES && errno != ENOENT && errno != ENOTDIR) return;
  }
  errno = number;
}

// In the parent's memory, with file descriptors, signal dispositions and working directory of its own.
int child(void* data) {
  Plan& plan = *static_cast<Plan*>(data);
  const char* failed = "";
  execute(plan, &failed);
  plan.number = errno;
  plan.syscall = failed;
  _exit(127);
}

// The parent stands still until the child executes or ends. Returns the pid, or -1 with errno.
pid_t start(Plan& plan) {
  void* const stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  plan.syscall = "mmap";
  if (stack == MAP_FAILED) return -1;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  plan.syscall = "clone";
  const pid_t pid = clone(child, static_cast<char*>(stack) + kStack, CLONE_VM | CLONE_VFORK | SIGCHLD, &plan);
  int number = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  munmap(stack, kStack);
  if (pid >= 0 && plan.number == 0) return pid;
  if (pid >= 0) {
    TEMP_FAILURE_RETRY(waitpid(pid, nullptr, 0));
    number = plan.number;
  }
  errno = number;
  return -1;
}

// Copies of the descriptors, all above those they become: no dup2 of the child's takes away what another one needs.
bool lift(const Span<double>& wanted, int passing, std::vector<int>& lifted) {
  // The next one is for what it has while it begins.
  const int above = static_cast<int>(wanted.size) + 1;
  for (size_t place = 0; place <= wanted.size; place++) {
    const bool is_last = place == wanted.size;
    if (is_last && passing < 0) break;
    const int source = is_last ? passing : static_cast<int>(wanted.data[place]);
    const int fd = source < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : source;
    if (fd < 0) return false;
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, above);
    const int number = errno;
    if (source < 0) close(fd);
    errno = number;
    if (copy < 0) return false;
    lifted.push_back(copy);
  }
  return true;
}

napi_value spawn_program(Call& call) {
  std::vector<std::string> paths = call.texts(0);
  std::vector<std::string> words = call.texts(1);
  std::vector<std::string> environment = call.texts(2);
  const std::string folder = call.text(3);
  const Span<double> descriptors = call.numbers(4);
  const int passing = call.integer(5);
  if (call.rejected()) return nullptr;
  std::vector<int> lifted;
  const std::vector<char*> path_list = pointers(paths);
  const std::vector<char*> word_list = pointers(words);
  const std::vector<char*> variable_list = pointers(environment);
  Plan plan = {path_list, word_list, variable_list, folder.c_str(), lifted, -1, "fcntl", 0};
  const bool is_lifted = lift(descriptors, passing, lifted);
  const std::vector<int> copies = lifted;
  if (is_lifted && passing >= 0) {
    plan.passing = lifted.back();
    lifted.pop_back();
  }
  const pid_t pid = is_lifted ? start(plan) : -1;
  const int number = errno;
  for (const int fd : copies) close(fd);
  if (pid >= 0) return call.number(pid);
  const std::string& program = words.empty() ? folder : words[0];
  return call.fail_with(number, plan.syscall, plan.syscall == std::string("chdir") ? folder : program);
}

}  // namespace

void define_spawn(napi_env env, napi_value exports) { define<spawn_program>(env, exports, "spawn"); }

}  // namespace moor
