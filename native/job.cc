#include "job.h"

#include <pthread.h>

namespace moor {

napi_value Job::result(napi_env env) {
  napi_value nothing = nullptr;
  napi_get_undefined(env, &nothing);
  return nothing;
}

bool Job::fail_with(int number, const char* syscall, const std::string& subject) {
  failure_ = {number, syscall, subject};
  return false;
}

bool Job::cancelled() {
  if (__atomic_load_n(cancel_, __ATOMIC_RELAXED) == 0) return false;
  fail_with(ECANCELED, "job", "");
  return true;
}

napi_value Job::start(Call& call, size_t index, std::unique_ptr<Job> job) {
  const napi_env env = call.env();
  const Span<uint8_t> cancel = call.octets(index);
  if (call.rejected()) return nullptr;
  if (cancel.size != 1) return call.fail_with(EINVAL, "job");
  job->cancel_ = cancel.data;
  napi_value promise = nullptr, name = nullptr;
  napi_create_string_utf8(env, "moor job", NAPI_AUTO_LENGTH, &name);
  // The thread reads the byte until it ends, so it must stay where it is.
  napi_create_reference(env, call.value(index), 1, &job->cancel_ref_);
  napi_create_promise(env, &job->deferred_, &promise);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 1, 1, nullptr, nullptr, nullptr, finish, &job->answer_);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const int number = pthread_create(&thread, &attributes, execute, job.get());
  pthread_attr_destroy(&attributes);
  if (number != 0) {
    job->fail_with(number, "pthread_create", "");
    napi_call_threadsafe_function(job->answer_, job.get(), napi_tsfn_blocking);
  }
  job.release();
  return promise;
}

void* Job::execute(void* data) {
  Job* const job = static_cast<Job*>(data);
  job->done_ = job->run();
  // Afterwards the job belongs to JavaScript's thread; while the process ends, nobody takes it any more.
  napi_call_threadsafe_function(job->answer_, job, napi_tsfn_blocking);
  return nullptr;
}

void Job::finish(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Job> job(static_cast<Job*>(data));
  // Without an environment the process is ending.
  if (env == nullptr) return;
  napi_delete_reference(env, job->cancel_ref_);
  if (job->done_) {
    napi_resolve_deferred(env, job->deferred_, job->result(env));
  } else {
    const Failure& failure = job->failure_;
    napi_reject_deferred(env, job->deferred_, system_error(env, failure.number, failure.syscall, failure.subject));
  }
  napi_release_threadsafe_function(job->answer_, napi_tsfn_release);
}

}  // namespace moor
