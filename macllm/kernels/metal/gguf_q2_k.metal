// Q2_K: 16 bytes of a scale and a minimum each, 64 bytes of codes, scale of scales, scale of minimums.

constant constexpr int BLOCK_WEIGHTS = 256;
constant constexpr int BLOCK_BYTES = 84;
constant constexpr int BLOCK_APART = 32;
constant constexpr int BLOCK_OFFSET = 0;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = true;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const int quarter = part / 4;  // 64 weights
  const int within = part % 4 * 8;
  const device uint8_t* codes = block + 16 + quarter / 2 * 32 + within;
  const int shift = quarter % 2 * 4;
  for (int i = 0; i < 2; i++) {
    const uint word = block_word(codes + 4 * i) >> shift;
    found.codes[i] = word & 0x03030303u;
    found.codes[2 + i] = (word >> 2) & 0x03030303u;
  }
  const uint groups = block_word(block + 4 * quarter) >> (within / 16 * 8);  // of 16 weights
  const uint both = block_word(block + 80);
  for (int i = 0; i < 2; i++) {
    const uint group = groups >> (16 * i);
    found.scales[i] = block_half(both) * float(group & 15u);
    found.biases[i] = -block_half(both >> 16) * float((group >> 4) & 15u);
  }
  return found;
}
