  // One simdgroup computes OUTPUTS of one or several rows of x: row h of the matrix is the gate, row H + h the up
  // projection. A lane takes two words of each at a time, which one group holds, for all rows of x.
  // Template: T (of x and y), K and H (inputs and outputs), R (rows of x), GS (weights of a group), BITS (4 or 8).
  constexpr int OUTPUTS = 2;
  constexpr int CODES = 32 / BITS;  // of a word
  constexpr int TAKEN = 2 * CODES;
  constexpr int GROUPS = K / GS;
  const uint lane = thread_index_in_simdgroup;
  const int first = int(threadgroup_position_in_grid.y * 2 + simdgroup_index_in_threadgroup) * OUTPUTS;
  float sums[R][2 * OUTPUTS];
  for (int r = 0; r < R; r++) {
    for (int o = 0; o < 2 * OUTPUTS; o++) sums[r][o] = 0;
  }
  for (int k = int(lane) * TAKEN; k < K; k += 32 * TAKEN) {
    float xs[R][TAKEN];
    for (int r = 0; r < R; r++) {
      for (int i = 0; i < TAKEN; i++) xs[r][i] = float(x[size_t(r) * K + k + i]);
    }
    for (int o = 0; o < 2 * OUTPUTS; o++) {
      const int output = first + o / 2 < H ? first + o / 2 : H - 1;  // the last of an odd count is computed twice
      const size_t row = size_t(o % 2) * H + output;
      const float scale = float(scales[row * GROUPS + k / GS]);
      const float bias = float(biases[row * GROUPS + k / GS]);
      for (int w = 0; w < 2; w++) {
        uint word = weight[row * (K / CODES) + k / CODES + w];
        for (int i = 0; i < CODES; i++) {
          const float value = scale * float(word & ((1u << BITS) - 1)) + bias;
          for (int r = 0; r < R; r++) sums[r][o] += xs[r][w * CODES + i] * value;
          word >>= BITS;
        }
      }
    }
  }
  for (int r = 0; r < R; r++) {
    for (int o = 0; o < OUTPUTS; o++) {
      const float gate = simd_sum(sums[r][2 * o]);
      const float up = simd_sum(sums[r][2 * o + 1]);
      if (lane == 0 && first + o < H) y[size_t(r) * H + first + o] = T(gate / (1.0f + exp(-gate)) * up);
    }
  }
