  // One simdgroup packs one group of 64 numbers of a new key or value, a lane the numbers of its words.
  // Template: T, BITS. count holds the groups of a head (of all new tokens), the heads of keys, and all groups.
  constexpr int GROUP = 64;
  constexpr int PACK = 32 / BITS;
  constexpr int WORDS = GROUP / PACK;  // of a group: 16 or 8
  constexpr float TOP = float((1 << BITS) - 1);
  const uint lane = thread_index_in_simdgroup;
  const int plane = count[0];
  const int heads = count[1];
  // counted through each row's keys, then its values
  const int group = int(threadgroup_position_in_grid.x * 4 + simdgroup_index_in_threadgroup);
  if (group >= count[2]) return;
  const int within = group % plane;
  const int head = group / plane % heads;
  const bool value = group / (plane * heads) % 2 != 0;
  const int row = group / (plane * heads * 2);  // of the batch
  const size_t from = (size_t(row * heads + head) * plane + within) * GROUP;

  float low = 3.4e38f;
  float high = -3.4e38f;
  for (int i = int(lane); i < GROUP; i += 32) {
    const float x = value ? float(values[from + i]) : float(keys[from + i]);
    low = min(low, x);
    high = max(high, x);
  }
  for (int m = 16; m > 0; m >>= 1) {
    low = min(low, simd_shuffle_xor(low, m));
    high = max(high, simd_shuffle_xor(high, m));
  }
  // The number that is farther from zero is met exactly, and so is zero: as MLX quantizes.
  const bool negative = fabs(low) > fabs(high);
  const float edge = negative ? low : high;
  float scale = max((high - low) / TOP, 1e-7f);
  scale = negative ? scale : -scale;
  const float steps = round(edge / scale);
  float bias = 0;
  if (steps != 0) {
    scale = edge / steps;
    bias = edge;
  }

  const int side = row * 2 + (value ? 1 : 0);
  if (int(lane) < WORDS) {
    uint word = 0;
    for (int i = 0; i < PACK; i++) {
      const size_t place = from + lane * PACK + i;
      const float x = value ? float(values[place]) : float(keys[place]);
      word |= uint(min(max(round((x - bias) / scale), 0.0f), TOP)) << (i * BITS);
    }
    codes[(size_t(side * heads + head) * plane + within) * WORDS + lane] = word;
  }
  if (lane == 0) {
    const int first = row * 4 + (value ? 1 : 0);  // scales of keys, of values, then biases of both
    scales[size_t(first * heads + head) * plane + within] = T(scale);
    scales[size_t((first + 2) * heads + head) * plane + within] = T(bias);
  }
