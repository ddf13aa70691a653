// A program of kernels: reads launches from a file, runs them one after another, writes their outputs.
//
//   program LAUNCHES RESULTS FIRST
//
// All numbers are 64 bits, little-endian. LAUNCHES: their count, then for each: index of the kernel, grid and
// threadgroup (3 numbers each), number of buffers; per buffer whether it is an output, its bytes, the length of its
// name, the name, and an input's contents; number of passes; per pass its order, seed, side and fill byte.
// RESULTS, from launch FIRST on: for each launch and pass the outputs' bytes. The first fault ends the program with
// one line on stderr; what was finished before is in RESULTS.

#include <cstdio>
#include <cstdlib>

#include "buffers.h"
#include "fibers.h"
#include "sanitizers.h"

namespace harness {
extern const Kernel kernels[];  // the program's, generated

namespace {

uint64_t number(FILE* file) {
  uint64_t value = 0;
  if (fread(&value, sizeof value, 1, file) != 1) exit(4);
  return value;
}

uint3 three(FILE* file) {
  uint3 made;
  for (int i = 0; i < 3; i++) made[i] = unsigned(number(file));
  return made;
}

Buffer read_buffer(FILE* file) {
  Buffer buffer;
  buffer.output = number(file) != 0;
  buffer.bytes = number(file);
  buffer.name.resize(number(file));
  if (fread(buffer.name.data(), 1, buffer.name.size(), file) != buffer.name.size()) exit(4);
  if (!buffer.output) {
    buffer.contents.resize(buffer.bytes);
    if (fread(buffer.contents.data(), 1, buffer.bytes, file) != buffer.bytes) exit(4);
  }
  return buffer;
}

void run_launch(FILE* file, FILE* results, bool skip) {
  const Kernel& kernel = kernels[number(file)];
  const uint3 threads = three(file), threadgroup = three(file);
  std::vector<Buffer> buffers(number(file));
  for (Buffer& buffer : buffers) buffer = read_buffer(file);
  for (uint64_t passes = number(file); passes; passes--) {
    const Order order = Order(number(file));
    const uint64_t seed = number(file);
    const Side side = Side(number(file));
    const auto fill = (unsigned char)number(file);
    if (skip) continue;
    watch_guards(&buffers);
    place_buffers(buffers, side, fill);
    std::vector<void*> places;
    for (Buffer& buffer : buffers) places.push_back(buffer.place);
    mark_initialised(places.data(), places.size() * sizeof(void*));
    run_grid(kernel, places.data(), {threads, threadgroup}, order, seed, fill);
    check_buffers(buffers, fill);
    for (Buffer& buffer : buffers) {
      if (buffer.output) fwrite(buffer.place, 1, buffer.bytes, results);
    }
    free_buffers(buffers);
  }
  fflush(results);
}

}  // namespace
}  // namespace harness

int main(int count, char** words) {
  if (count != 4) return 4;
  FILE *file = fopen(words[1], "rb"), *results = fopen(words[2], "wb");
  if (!file || !results) return 4;
  const uint64_t launches = harness::number(file), first = strtoull(words[3], nullptr, 10);
  for (uint64_t i = 0; i < launches; i++) harness::run_launch(file, results, i < first);
  fclose(results);
  return 0;
}
