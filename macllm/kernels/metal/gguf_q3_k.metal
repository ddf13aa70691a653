// Q3_K: 32 bytes of third bits, 64 bytes of codes, 16 scales of 6 bits in 12 bytes, scale of scales.

constant constexpr int BLOCK_WEIGHTS = 256;
constant constexpr int BLOCK_BYTES = 110;
constant constexpr int BLOCK_APART = 32;
constant constexpr int BLOCK_OFFSET = 4;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = false;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const int quarter = part / 4;  // 64 weights
  const int within = part % 4 * 8;
  const device uint8_t* codes = block + 32 + quarter / 2 * 32 + within;
  const int shift = quarter % 2 * 4;
  for (int i = 0; i < 2; i++) {
    const uint word = block_word_of_pairs(codes + 4 * i) >> shift;
    const uint thirds = block_word_of_pairs(block + within + 4 * i) >> (2 * quarter);
    found.codes[i] = (word & 0x03030303u) | ((thirds & 0x01010101u) << 2);
    found.codes[2 + i] = ((word >> 2) & 0x03030303u) | (((thirds >> 1) & 0x01010101u) << 2);
  }
  const uint low = block_word_of_pairs(block + 96 + quarter % 2 * 4) >> (quarter / 2 * 4);
  const uint top = block_word_of_pairs(block + 104) >> (2 * quarter);
  const uint factors = ((low & 0x0F0F0F0Fu) | ((top & 0x03030303u) << 4)) >> (within / 16 * 8);
  const float scale = block_half_at(block + 108);
  found.scales[0] = scale * float(int(factors & 63u) - 32);
  found.scales[1] = scale * float(int((factors >> 16) & 63u) - 32);
  found.biases[0] = 0;
  found.biases[1] = 0;
  return found;
}
