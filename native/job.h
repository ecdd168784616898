// Work that takes long, on a thread of its own: libuv's four are for the short work of everyone (files, names, commits).
#pragma once

#include <node_api.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>

#include "call.h"

namespace moor {

// Where a job failed, kept from its thread for the error in JavaScript.
struct Failure {
  int number = 0;
  const char* syscall = "";
  std::string subject;
};

class Job {
 public:
  virtual ~Job() = default;

  // On the job's thread: no N-API here. False after fail().
  virtual bool run() = 0;
  // On JavaScript's thread, after run() was true.
  virtual napi_value result(napi_env env);

  // Starts the job and gives JavaScript a promise of its result. The argument at `index` is a Uint8Array of one byte, which
  // JavaScript sets to end the job with ECANCELED.
  static napi_value start(Call& call, size_t index, std::unique_ptr<Job> job);

 protected:
  // Notes the current errno. Always false.
  bool fail(const char* syscall, const std::string& subject) { return fail_with(errno, syscall, subject); }
  bool fail_with(int number, const char* syscall, const std::string& subject);
  // True, and the job has failed, when JavaScript wants it to end.
  bool cancelled();

 private:
  static void* execute(void* data);
  static void finish(napi_env env, napi_value, void* context, void* data);

  Failure failure_;
  bool done_ = false;
  const uint8_t* cancel_ = nullptr;
  napi_ref cancel_ref_ = nullptr;
  napi_deferred deferred_ = nullptr;
  napi_threadsafe_function answer_ = nullptr;
};

}  // namespace moor
