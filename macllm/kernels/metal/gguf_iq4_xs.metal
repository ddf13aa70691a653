// IQ4_XS: scale of scales, top bits of eight scales in 2 bytes, low bits in 4, then 16 bytes for each 32 weights.

constant constexpr int BLOCK_WEIGHTS = 256;
constant constexpr int BLOCK_BYTES = 136;
constant constexpr int BLOCK_APART = 16;
constant constexpr int BLOCK_OFFSET = 0;
constant constexpr bool BLOCK_TABLE = true;
constant constexpr bool BLOCK_BIASED = false;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 8 + 8 * part;
  block_nibbles(found, block_word(codes), block_word(codes + 4));
  const int group = part / 2;
  const uint both = block_word(block);
  const uint low = (block_word(block + 4) >> (4 * group)) & 15u;
  const uint top = (both >> (16 + 2 * group)) & 3u;
  block_same_scale(found, block_half(both) * float(int(low | (top << 4)) - 32), 0);
  return found;
}
