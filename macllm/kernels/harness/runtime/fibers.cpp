// The scheduler: which fiber runs next, and the places where fibers wait for each other.
//
// A fiber runs until it waits (for its simdgroup or its threadgroup) or returns; then the next one that is ready
// runs. So between two barriers every order of threads is possible, and `order` picks one of them. All state is
// global: one kernel runs at a time, on one thread of the system.

#include "fibers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "sanitizers.h"
#include "switch.h"

namespace harness {

Answer answer;

namespace {

constexpr size_t kThreads = 1024;      // most threads of a threadgroup
constexpr size_t kMemory = 32 * 1024;  // bytes of threadgroup memory on every Apple GPU
constexpr size_t kGap = 64;            // bytes after each of its variables that nobody may touch
constexpr size_t kPage = 4096;
#if defined(HARNESS_ADDRESS)
constexpr size_t kStack = 512 * 1024;  // redzones around every local variable
#else
constexpr size_t kStack = 256 * 1024;
#endif

enum class State { ready, in_simdgroup, in_barrier, done };

struct Stack {
  char* base = nullptr;
  void* fiber = nullptr;  // ThreadSanitizer's
};

struct Thread {
  void* pointer = nullptr;  // of the stack, while another one runs
  void* fake_stack = nullptr;  // AddressSanitizer's
  Stack* stack = nullptr;
  State state = State::done;
  unsigned lane = 0, simdgroup = 0;
  Site site{};
  Position position;
};

// Bits of lanes: those that could run, that have not returned, that wait for the others of the simdgroup, and
// that wait at the threadgroup's barrier. Two sets of slots: lanes may be at the next exchange already while
// others still read this one.
struct Simdgroup {
  unsigned ready = 0, alive = 0, arrived = 0, in_barrier = 0, turn = 0;
  Site site{};
  unsigned active[2] = {};
  char slots[2][kLanes][kLargestValue];
};

struct Variable {
  char* place = nullptr;
  size_t bytes = 0;
  uint64_t threadgroup = 0;  // that it was made for
};

struct {
  const Kernel* kernel;
  void** buffers;
  Order order;
  unsigned char fill;
  uint64_t random;
} job;

Thread threads[kThreads], outside;  // outside: the program's own stack
Stack stacks[kThreads];
Simdgroup simdgroups[kThreads / kLanes];
Thread* running = &outside;
unsigned thread_count, simdgroup_count, alive, waiting;
bool some_returned;
Site barrier_site;
// What ThreadSanitizer orders threads by. Two for each meeting place, used in turn: a thread that is at the next
// barrier already must not be ordered before one that has yet to leave this one.
char start_tag, barrier_tags[2], simdgroup_tags[kThreads / kLanes][2];
unsigned barrier_turn;
const void* outside_stack;
size_t outside_stack_bytes;
uint64_t threadgroup_number;
std::vector<Variable> variables;
char* pool;
size_t pool_used, pool_bytes, memory_used;

uint64_t next_random() {
  job.random ^= job.random << 13;
  job.random ^= job.random >> 7;
  job.random ^= job.random << 17;
  return job.random;
}

std::string text_of(Site site) {
  char text[400];
  snprintf(text, sizeof text, "%s at %s:%d", site.what, site.file ? site.file : "?", site.line);
  return text;
}

// ThreadSanitizer watches memcpy and memset wherever they are called; these are the runtime's own business.
void copy(char* to, const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) ((volatile char*)to)[i] = ((const char*)from)[i];
}
void fill(char* place, unsigned char byte, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) ((volatile char*)place)[i] = char(byte);
}

bool same(Site a, Site b) { return a.line == b.line && strcmp(a.what, b.what) == 0; }

// ---- switching ----

void switch_to(Thread* next, bool dying = false) {
  Thread* before = running;
  running = next;
#if defined(HARNESS_ADDRESS)
  const void* bottom = next->stack ? (const void*)next->stack->base : outside_stack;
  const size_t bytes = next->stack ? kStack : outside_stack_bytes;
  __sanitizer_start_switch_fiber(dying ? nullptr : &before->fake_stack, bottom, bytes);
#elif defined(HARNESS_THREAD)
  static void* first = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(next->stack ? next->stack->fiber : first, __tsan_switch_to_fiber_no_sync);
#endif
  (void)dying;
  harness_switch(&before->pointer, next->pointer);
#if defined(HARNESS_ADDRESS)
  __sanitizer_finish_switch_fiber(before->fake_stack, nullptr, nullptr);
#endif
}

unsigned lane_from(unsigned ready) {
  if (job.order == Order::forward) return __builtin_ctz(ready);
  if (job.order == Order::reverse) return 31 - __builtin_clz(ready);
  const unsigned turn = next_random() & 31;
  const unsigned turned = turn ? (ready >> turn) | (ready << (32 - turn)) : ready;
  return (__builtin_ctz(turned) + turn) & 31;
}

// The thread that runs next, near `simdgroup` where the order is not random; nullptr: none can.
Thread* next_ready(unsigned simdgroup) {
  if (job.order == Order::random) simdgroup = next_random() % simdgroup_count;
  for (unsigned k = 0; k < simdgroup_count; k++) {
    const unsigned step = job.order == Order::reverse ? simdgroup_count - k : k;
    const unsigned at = (simdgroup + step) % simdgroup_count;
    if (simdgroups[at].ready) return &threads[at * kLanes + lane_from(simdgroups[at].ready)];
  }
  return nullptr;
}

void let_others_run(bool dying = false) {
  Thread* next = next_ready(running->simdgroup);
  if (next != running) switch_to(next ? next : &outside, dying);
}

// ---- meeting places ----

void wake(unsigned simdgroup, unsigned lanes) {
  for (unsigned rest = lanes; rest; rest &= rest - 1) {
    threads[simdgroup * kLanes + __builtin_ctz(rest)].state = State::ready;
  }
  simdgroups[simdgroup].ready |= lanes;
}

void release_simdgroup(Simdgroup& group) {
  const unsigned lanes = group.arrived;
  group.active[group.turn] = group.alive;
  group.arrived = 0;
  group.turn ^= 1;
  wake(unsigned(&group - simdgroups), lanes);
}

void release_barrier() {
  for (unsigned i = 0; i < simdgroup_count; i++) {
    wake(i, simdgroups[i].in_barrier);
    simdgroups[i].in_barrier = 0;
  }
  waiting = 0;
  barrier_turn ^= 1;
}

void returned(Thread* self) {
  Simdgroup& group = simdgroups[self->simdgroup];
  const unsigned bit = 1u << self->lane;
  self->state = State::done;
  group.alive &= ~bit;
  group.ready &= ~bit;
  alive--;
  some_returned = true;
  if (group.arrived && group.arrived == group.alive) release_simdgroup(group);
  if (waiting) fault("a barrier is not reached by every thread", barrier_site);
}

void thread_main() {
  Thread* self = running;
#if defined(HARNESS_ADDRESS)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!outside_stack) {  // the very first switch came from outside
    outside_stack = bottom;
    outside_stack_bytes = bytes;
  }
#endif
  acquire(&start_tag);   // after what is outside, not after other threads
  acquire(self->stack);  // and after the thread that had this stack before
  mark_initialised(&self->position, sizeof self->position);
  mark_arguments_initialised(2);
  job.kernel->entry(job.buffers, self->position);
  release(self->stack);
  returned(self);
  let_others_run(true);
  abort();  // nobody switches back to it
}

// ThreadSanitizer knows one kind of order only. A kernel with threadgroup memory hands things over in that, so a
// fence for buffers alone is none for it.
bool orders(Fence fence) { return fence.shared || (fence.device && memory_used == 0); }

// ---- a threadgroup ----

void prepare_stack(Thread& thread, Stack& stack) {
  if (!stack.base) {
    stack.base = (char*)mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack.base == MAP_FAILED) abort();
    mprotect(stack.base, kPage, PROT_NONE);
  }
  allow(stack.base + kPage, kStack - kPage);
#if defined(HARNESS_THREAD)
  if (stack.fiber) __tsan_destroy_fiber(stack.fiber);
  stack.fiber = __tsan_create_fiber(0);
#endif
  thread.stack = &stack;
  thread.fake_stack = nullptr;
  thread.pointer = harness_first_frame(stack.base + kStack, thread_main);
}

Position position_of(unsigned i, uint3 id, Grid grid, uint3 size) {
  const unsigned whole = grid.threadgroup.x * grid.threadgroup.y * grid.threadgroup.z;
  const uint3 within = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
  Position p;
  p.thread_position_in_threadgroup = within;
  p.thread_position_in_grid = id * grid.threadgroup + within;
  p.threadgroup_position_in_grid = id;
  p.threads_per_threadgroup = size;
  p.dispatch_threads_per_threadgroup = grid.threadgroup;
  p.threads_per_grid = p.grid_size = grid.threads;
  p.threadgroups_per_grid = (grid.threads + grid.threadgroup - 1u) / grid.threadgroup;
  p.grid_origin = uint3{0, 0, 0};
  p.thread_index_in_threadgroup = i;
  p.thread_index_in_simdgroup = i % kLanes;
  p.simdgroup_index_in_threadgroup = i / kLanes;
  p.simdgroups_per_threadgroup = (thread_count + kLanes - 1) / kLanes;
  p.dispatch_simdgroups_per_threadgroup = (whole + kLanes - 1) / kLanes;
  p.threads_per_simdgroup = p.thread_execution_width = kLanes;
  p.quadgroup_index_in_threadgroup = i / 4;
  p.thread_index_in_quadgroup = i % 4;
  p.quadgroups_per_threadgroup = (thread_count + 3) / 4;
  p.dispatch_quadgroups_per_threadgroup = (whole + 3) / 4;
  return p;
}

void prepare_threads(uint3 id, Grid grid) {
  uint3 size;
  for (int i = 0; i < 3; i++) size[i] = std::min(grid.threadgroup[i], grid.threads[i] - id[i] * grid.threadgroup[i]);
  thread_count = size.x * size.y * size.z;
  simdgroup_count = (thread_count + kLanes - 1) / kLanes;
  alive = thread_count;
  waiting = 0;
  some_returned = false;
  for (unsigned s = 0; s < simdgroup_count; s++) {
    const unsigned lanes = thread_count - s * kLanes;
    Simdgroup& group = simdgroups[s];
    group.ready = group.alive = lanes >= kLanes ? ~0u : (1u << lanes) - 1;
    group.arrived = group.in_barrier = 0;
  }
  // ThreadSanitizer orders threads that had one stack after each other: threads of equal index in different
  // threadgroups are those that are likeliest to race, so they get different ones.
#if defined(HARNESS_THREAD)
  const unsigned turn = unsigned(threadgroup_number * 37);
#else
  const unsigned turn = 0;
#endif
  for (unsigned i = 0; i < thread_count; i++) {
    Thread& thread = threads[i];
    prepare_stack(thread, stacks[(i + turn) % std::min<size_t>(kThreads, 2 * thread_count)]);
    thread.state = State::ready;
    thread.lane = i % kLanes;
    thread.simdgroup = i / kLanes;
    thread.position = position_of(i, id, grid, size);
  }
}

[[noreturn]] void deadlock() {
  std::string text = "threads wait for each other for ever:";
  int told = 0;
  Site last{"", "", 0};
  for (unsigned i = 0; i < thread_count && told < 3; i++) {
    if (threads[i].state == State::done || same(threads[i].site, last)) continue;
    last = threads[i].site;
    text += (told++ ? ", thread " : " thread ") + std::to_string(i) + " in " + text_of(last);
  }
  fprintf(stderr, "harness: %s\n", text.c_str());
  _exit(3);
}

// Threadgroup memory of one threadgroup begins where that of the one before ended under ThreadSanitizer, for
// which the same bytes again would look like a race between the two.
void prepare_memory() {
  threadgroup_number++;
  memory_used = 0;
#if defined(HARNESS_THREAD)
  constexpr size_t reserved = size_t(1) << 32;
#else
  constexpr size_t reserved = 4 * kMemory;  // gaps take room too
  pool_used = 0;
#endif
  if (!pool || pool_used + 4 * kMemory > pool_bytes) {
    pool = (char*)mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool == MAP_FAILED) abort();
    pool_bytes = reserved;
    pool_used = 0;
  }
}

char* room_for(Variable& variable, size_t bytes) {
#if defined(HARNESS_ADDRESS)  // each in memory of its own, with redzones
  if (variable.bytes != bytes) {
    free(variable.place);
    variable.place = (char*)malloc(bytes);
  }
  return variable.place;
#else
  (void)variable;
  char* place = pool + pool_used;
  pool_used += (bytes + 15) / 16 * 16 + kGap;
  fill(place + bytes, job.fill, kGap);
  mark_uninitialised(place + bytes, kGap);
  return place;
#endif
}

// Nothing was written beside a variable of the threadgroup that has just run.
void check_memory() {
#if !defined(HARNESS_ADDRESS)
  for (const Variable& variable : variables) {
    if (variable.threadgroup != threadgroup_number) continue;
    const char* gap = variable.place + variable.bytes;
    if (std::any_of(gap, gap + kGap, [](char byte) { return (unsigned char)byte != job.fill; })) {
      fault("out of bounds: threadgroup memory is written past the end of an array",
            {"a declaration", job.kernel->name, 0});
    }
  }
#endif
}

}  // namespace

void fault(const char* message, Site site) {
  const Position& at = running->position;
  fprintf(stderr, "harness: %s: %s", message, text_of(site).c_str());
  if (running != &outside) {
    const uint3 group = at.threadgroup_position_in_grid;
    fprintf(stderr, ", thread %u of threadgroup (%u, %u, %u)", at.thread_index_in_threadgroup, group.x, group.y,
            group.z);
  }
  fputc('\n', stderr);
  _exit(3);
}

void exchange(const void* value, size_t bytes, Site site) {
  Thread* self = running;
  Simdgroup& group = simdgroups[self->simdgroup];
  if (group.arrived && !same(group.site, site)) {
    fault(("lanes of one simdgroup are at different places, one in " + text_of(group.site)).c_str(), site);
  }
  if (first_uninitialised(value, bytes) >= 0) fault("an uninitialised value is handed to other lanes", site);
  group.site = self->site = site;
  const unsigned turn = group.turn;
  copy(group.slots[turn][self->lane], value, bytes);
  mark_initialised(group.slots[turn][self->lane], bytes);
  group.arrived |= 1u << self->lane;
  group.ready &= ~(1u << self->lane);
  self->state = State::in_simdgroup;
  if (group.arrived == group.alive) release_simdgroup(group);
  if (self->state != State::ready) let_others_run();
  answer.exchange = {group.slots[turn], group.active[turn], self->lane};
}

void threadgroup_wait(Site site, Fence kind) {
  const bool fence = orders(kind);
  Thread* self = running;
  Simdgroup& group = simdgroups[self->simdgroup];
  char* tag = &barrier_tags[barrier_turn];
  if (fence) release(tag);
  if (some_returned) fault("a barrier comes after some threads have returned", site);
  if (waiting && !same(barrier_site, site)) {
    fault(("threads wait at different barriers, one in " + text_of(barrier_site)).c_str(), site);
  }
  barrier_site = self->site = site;
  waiting++;
  group.in_barrier |= 1u << self->lane;
  group.ready &= ~(1u << self->lane);
  self->state = State::in_barrier;
  if (waiting == alive) release_barrier();
  if (self->state != State::ready) let_others_run();
  if (fence) acquire(tag);
}

void simdgroup_wait(Site site, Fence kind) {
  const bool fence = orders(kind);
  char* tag = &simdgroup_tags[running->simdgroup][simdgroups[running->simdgroup].turn];
  if (fence) release(tag);
  const int nothing = 0;
  exchange(&nothing, sizeof nothing, site);
  if (fence) acquire(tag);
}

void find_lane() { answer.lane = running->lane; }

void find_memory(unsigned number, size_t bytes) {
  if (number >= variables.size()) variables.resize(number + 1);
  Variable& variable = variables[number];
  if (variable.threadgroup != threadgroup_number) {
    memory_used += (bytes + 15) / 16 * 16;
    if (memory_used > kMemory) {
      fault(("threadgroup memory of " + std::to_string(memory_used) + " bytes, of 32768").c_str(),
            {"a declaration", job.kernel->name, 0});
    }
    variable.place = room_for(variable, bytes);
    variable.bytes = bytes;
    variable.threadgroup = threadgroup_number;
    fill(variable.place, job.fill, bytes);
    mark_uninitialised(variable.place, bytes);
  }
  answer.memory = variable.place;
}

void run_grid(const Kernel& kernel, void** buffers, Grid grid, Order order, uint64_t seed, unsigned char fill) {
  for (int i = 0; i < 3; i++) grid.threadgroup[i] = std::min(grid.threadgroup[i], grid.threads[i]);
  const Site site{"the launch", kernel.name, 0};
  if (grid.threadgroup.x * grid.threadgroup.y * grid.threadgroup.z > kThreads) {
    fault("a threadgroup of more than 1024 threads", site);
  }
  job = {&kernel, buffers, order, fill, seed * 0x9e3779b97f4a7c15ull + 1};
  const uint3 count = (grid.threads + grid.threadgroup - 1u) / grid.threadgroup;
  const uint64_t groups = uint64_t(count.x) * count.y * count.z;
  for (uint64_t i = 0; i < groups; i++) {
    const uint64_t at = order == Order::reverse ? groups - 1 - i : i;
    const uint3 id = {unsigned(at % count.x), unsigned(at / count.x % count.y), unsigned(at / count.x / count.y)};
    prepare_memory();
    prepare_threads(id, grid);
    release(&start_tag);
    switch_to(next_ready(order == Order::reverse ? simdgroup_count - 1 : 0));
    if (alive) deadlock();
    check_memory();
  }
  for (Stack& stack : stacks) {
    if (stack.base) acquire(&stack);  // what follows comes after all threads
  }
}

}  // namespace harness
