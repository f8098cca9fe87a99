// Work that is cut into chunks, on threads.

#pragma once

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace {

// Calls work(scratch, chunk) for all chunks, each of the scratches on a thread of its own: of
// PyTorch's OpenMP, whose waiting threads would otherwise be in the way, else of the system.
// Neighbouring chunks share lines of the cache, so each thread has a part of its own before it helps
// others.
template <class S, class Work>
void for_chunks(S* scratches, int64_t parts, int64_t chunks, Work work) {
  if (parts == 1) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) work(*scratches, chunk);
    return;
  }
  std::vector<std::atomic<int64_t>> next(parts);
  for (int64_t i = 0; i < parts; ++i) next[i] = chunks * i / parts;
  auto run = [&](int64_t own) {
    for (int64_t i = own; i < own + parts; ++i) {
      const int64_t part = i % parts, end = chunks * (part + 1) / parts;
      for (int64_t chunk; (chunk = next[part]++) < end;) work(scratches[own], chunk);
    }
  };
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(int(parts))
  for (int64_t i = 0; i < parts; ++i) run(i);
#else
  std::vector<std::thread> threads;
  threads.reserve(parts);
  try {
    for (int64_t i = 1; i < parts; ++i) threads.emplace_back(run, i);
  } catch (const std::system_error&) {
    // No more threads to be had: those that started take all chunks.
  }
  run(0);
  for (auto& thread : threads) thread.join();
#endif
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
