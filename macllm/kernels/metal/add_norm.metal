  // A threadgroup takes one row: s = x + y as it is stored, and n = s / rms(s) * weight. A thread keeps its numbers.
  // Template: T (of all), D (numbers of a row), THREADS (of a threadgroup, whole simdgroups). eps: one number.
  constexpr int KEPT = (D + THREADS - 1) / THREADS;
  threadgroup float parts[THREADS / 32];
  const int t = int(thread_index_in_threadgroup);
  const size_t row = size_t(threadgroup_position_in_grid.y) * D;
  float kept[KEPT];
  float squares = 0;
  for (int i = 0; i < KEPT; i++) {
    const int place = i * THREADS + t;
    kept[i] = 0;
    if (place < D) {
      const T sum = T(float(x[row + place]) + float(y[row + place]));
      s[row + place] = sum;
      kept[i] = float(sum);
      squares += kept[i] * kept[i];
    }
  }
  squares = simd_sum(squares);
  if (thread_index_in_simdgroup == 0) parts[simdgroup_index_in_threadgroup] = squares;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float total = 0;
  for (int i = 0; i < THREADS / 32; i++) total += parts[i];
  const float scale = rsqrt(total / float(D) + eps[0]);
  for (int i = 0; i < KEPT; i++) {
    const int place = i * THREADS + t;
    if (place < D) n[row + place] = T(kept[i] * scale * float(weight[place]));
  }
