// Q5_K: 16 bytes of scales, 32 bytes of fifth bits, then 32 bytes for each 64 weights, the low halves first.

constant constexpr int BLOCK_WEIGHTS = 256;
constant constexpr int BLOCK_BYTES = 176;
constant constexpr int BLOCK_APART = 32;
constant constexpr int BLOCK_OFFSET = 0;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = true;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 48 + 8 * part;
  block_nibbles(found, block_word(codes), block_word(codes + 4));
  const int quarter = part / 4;  // 64 weights
  for (int i = 0; i < 2; i++) {
    const uint fifths = block_word(block + 16 + part % 4 * 8 + 4 * i) >> (2 * quarter);
    found.codes[i] |= (fifths & 0x01010101u) << 4;
    found.codes[2 + i] |= ((fifths >> 1) & 0x01010101u) << 4;
  }
  block_k_scales(found, block, quarter);
  return found;
}
