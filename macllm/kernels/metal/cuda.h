// What a portable body asks of Metal, said in CUDA: it stands between MLX's own header and the body.
// A simdgroup is a warp; both have 32 lanes.

// CUDA spells its attributes with a word that becomes nothing below
#undef __device__
#define __device__ __attribute__((__device__))
#define device
#define thread
#define constant __device__
#define threadgroup __shared__
#define METAL_FUNC __device__ inline

#define thread_position_in_threadgroup threadIdx
#define threadgroup_position_in_grid blockIdx
#define threads_per_threadgroup blockDim
#define threadgroups_per_grid gridDim
#define thread_position_in_grid macllm_position()
#define thread_index_in_threadgroup macllm_index()
#define thread_index_in_simdgroup (macllm_index() % 32u)
#define simdgroup_index_in_threadgroup (macllm_index() / 32u)

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef __half half;
typedef __nv_bfloat16 bfloat;

__device__ inline uint3 macllm_position() {
  return make_uint3(
      blockIdx.x * blockDim.x + threadIdx.x,
      blockIdx.y * blockDim.y + threadIdx.y,
      blockIdx.z * blockDim.z + threadIdx.z);
}

__device__ inline uint macllm_index() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

enum class mem_flags { mem_none, mem_device, mem_threadgroup };

__device__ inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
__device__ inline void simdgroup_barrier(mem_flags) { __syncwarp(); }

constexpr unsigned MACLLM_ALL_LANES = 0xffffffffu;

template <class T>
__device__ inline T simd_shuffle_xor(T value, ushort mask) {
  return __shfl_xor_sync(MACLLM_ALL_LANES, value, mask);
}

template <class T>
__device__ inline T simd_shuffle_down(T value, ushort delta) {
  return __shfl_down_sync(MACLLM_ALL_LANES, value, delta);
}

template <class T>
__device__ inline T simd_broadcast(T value, ushort lane) {
  return __shfl_sync(MACLLM_ALL_LANES, value, lane);
}

template <class T>
__device__ inline T simd_sum(T value) {
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(MACLLM_ALL_LANES, value, mask);
  return value;
}

template <class T>
__device__ inline T simd_max(T value) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const T other = __shfl_xor_sync(MACLLM_ALL_LANES, value, mask);
    value = other > value ? other : value;
  }
  return value;
}

template <class To, class From>
__device__ inline To as_type(From value) {
  static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
  To found;
  memcpy(&found, &value, sizeof(found));
  return found;
}
