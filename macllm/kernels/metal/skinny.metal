// Products of up to eight rows of x with a packed matrix: y' = W x', in 8x8 matrices of float32.
// A lane holds two neighbours of one row of every 8x8 matrix, where MLX's own products have them too
// (steel/gemm/mma.h). A sum has no order, so it is free which inputs meet in which step: in step t of four, columns
// 2c and 2c + 1 of W are inputs 8c + t and 8c + 4 + t of the 32 at hand, and row j of x' is input 4j + t. So the eight
// weights that a lane brings to four steps lie side by side, and nothing passes through threadgroup memory.

constant constexpr int SKINNY_TILES = 4;       // of eight outputs each, in a threadgroup
constant constexpr int SKINNY_SIMDGROUPS = 8;  // of a threadgroup; each takes every eighth group of inputs
constant constexpr int SKINNY_STEPS = 4;       // of eight inputs each, at a time

// Row of an 8x8 matrix of which a lane holds two elements, and the first one's column.
inline int skinny_row(uint lane) { return int(((lane / 4) & 4) + (lane / 2) % 4); }
inline int skinny_column(uint lane) { return int(((lane / 4) & 2) * 2 + (lane % 2) * 2); }

// x' for four steps: this lane's inputs from ``input`` on, of rows ``row`` and the next; zeros past the last row.
template <typename X>
inline void skinny_inputs(
    X x, int rows, int width, int row, int input, thread simdgroup_matrix<float, 8, 8>* found) {
  for (int r = 0; r < 2; r++) {
    for (int t = 0; t < SKINNY_STEPS; t++) {
      found[t].thread_elements()[r] = row + r < rows ? float(x[size_t(row + r) * width + input + t]) : 0.0f;
    }
  }
}

// Adds eight weights of each lane times x' to a tile's sums.
inline void skinny_multiply(
    thread const float* weights,
    thread const simdgroup_matrix<float, 8, 8>* inputs,
    thread simdgroup_matrix<float, 8, 8>& sums) {
  for (int t = 0; t < SKINNY_STEPS; t++) {
    simdgroup_matrix<float, 8, 8> tile;
    tile.thread_elements()[0] = weights[t];
    tile.thread_elements()[1] = weights[SKINNY_STEPS + t];
    simdgroup_multiply_accumulate(sums, tile, inputs[t], sums);
  }
}

// Writes a simdgroup's sums to its part of ``parts``: (SKINNY_SIMDGROUPS, outputs of a threadgroup, 8 rows).
inline void skinny_keep(
    thread simdgroup_matrix<float, 8, 8>* sums, uint lane, uint simdgroup, threadgroup float* parts) {
  for (int tile = 0; tile < SKINNY_TILES; tile++) {
    const int place = ((int(simdgroup) * SKINNY_TILES + tile) * 8 + skinny_row(lane)) * 8 + skinny_column(lane);
    for (int r = 0; r < 2; r++) parts[place + r] = sums[tile].thread_elements()[r];
  }
}

// One number of y from the parts of all simdgroups: that of ``output`` (of the threadgroup's) and ``row``.
inline float skinny_sum(threadgroup const float* parts, int output, int row) {
  float sum = 0;
  for (int s = 0; s < SKINNY_SIMDGROUPS; s++) sum += parts[(s * SKINNY_TILES * 8 + output) * 8 + row];
  return sum;
}
