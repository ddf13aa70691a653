"""Bugs to plant into kernels, as data: what is replaced by what, and which build must report it as what.

``scripts/docs.py`` makes docs/kernel-check.md of this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One bug. It is planted once, where ``text`` first occurs after ``after``."""

    kernel: str
    bug: str
    text: str
    replacement: str
    build: str
    report: str  # a pattern of what must be reported
    dtype: str = "float32"
    shape: tuple[int, ...] | None = None  # of the cases to run; None: the smallest of each label
    label: str | None = None  # of the cases to run
    after: str = ""


_BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
_WRONG = "relative error"
_RACE = "data race"
_OUTSIDE = "out of bounds"
_UNWRITTEN = "never written"
_UNINITIALISED = "uninitialized|not written|uninitialised"
_OVERFLOW = "out of bounds|buffer-overflow"

_NF4_MATVEC = (
    ("the barrier after the tables is missing", _BARRIER, "", "thread", _RACE),
    ("the barrier orders no memory", "mem_flags::mem_threadgroup", "mem_flags::mem_none", "thread", _RACE),
    (
        "a barrier in a branch that one simdgroup takes",
        _BARRIER,
        f"if (simdgroup_index_in_threadgroup == 0) {_BARRIER}",
        "fast",
        "barrier",
    ),
    (
        "threads return before a barrier",
        _BARRIER,
        f"if (simdgroup_index_in_threadgroup == 1) return; {_BARRIER}",
        "fast",
        "barrier",
    ),
    ("the high half-byte is taken first", "values[word & 15]", "values[word >> 28]", "fast", _WRONG),
    ("the same code is taken eight times", "word >>= 4;", "", "fast", _WRONG),
    ("the scale is left out", "sums[r] += magnitude * sum", "sums[r] += sum", "fast", _WRONG),
    (
        "the mean is taken away, not added",
        "seconds[2 * second] + seconds",
        "seconds[2 * second] - seconds",
        "fast",
        _WRONG,
    ),
    (
        "scale and mean are exchanged",
        "seconds[2 * second] + seconds[2 * second + 1]",
        "seconds[2 * second + 1] + seconds[2 * second]",
        "fast",
        _WRONG,
    ),
    ("the other rows' weights", "* size_t(K / WORD) + k / WORD", "* size_t(K / WORD)", "fast", _WRONG),
    ("uninitialised sums", "float sums[ROWS] = {0, 0, 0, 0}", "float sums[ROWS]", "memory", _UNINITIALISED),
    ("half a table is filled", "if (t < 16) values", "if (t < 8) values", "memory", _UNINITIALISED),
    (
        "a table too short by one",
        "threadgroup float values[16]",
        "threadgroup float values[15]",
        "address",
        _OVERFLOW,
    ),
    ("40 KB of threadgroup memory", "levels_near[256]", "levels_near[10240]", "fast", "threadgroup memory"),
    ("every lane writes the sum", "lane == 0 && first", "first", "thread", _RACE),
    (
        "half of the lanes take part in a sum",
        "simd_sum(sums[r])",
        "lane < 16 ? simd_sum(sums[r]) : 0.0f",
        "fast",
        _WRONG,
    ),
    ("an input is written", "word >>= 4;", "weight[0] = word;", "lint", "cannot assign|read-only"),
    ("a double", "float sum = 0;", "double sum = 0;", "lint", "poisoned"),
    (
        "a threadgroup pointer as a device pointer",
        _BARRIER,
        f"{_BARRIER} const device float* near = values; (void)near;",
        "lint",
        "cannot initialize",
    ),
)


def _planted() -> tuple[Mutant, ...]:
    odd, wide = (33, 192), (100, 576)
    kernel = "nf4_matvec"
    return (
        *(Mutant(kernel, *each) for each in _NF4_MATVEC),
        Mutant(
            kernel,
            "a float becomes a bfloat without a cast",
            "= T(sum);",
            "= sum;",
            "lint",
            "implicit conversion",
            "bfloat16",
        ),
        Mutant(
            kernel,
            "rows past the last are read",
            "first + r < N ? first + r : N - 1",
            "first + r",
            "fast",
            _OUTSIDE,
            shape=odd,
        ),
        Mutant(
            kernel,
            "rows past the last are written",
            "lane == 0 && first + r < N",
            "lane == 0",
            "fast",
            f"{_OUTSIDE}|depend on",
            shape=odd,
        ),
        Mutant(
            kernel,
            "the last row is not written",
            "first + r < N) y",
            "first + r < N - 1) y",
            "fast",
            _UNWRITTEN,
            shape=odd,
        ),
        Mutant(
            kernel,
            "sums are written one row late",
            "first + r] = T",
            "first + r + 1] = T",
            "fast",
            f"{_OUTSIDE}|{_UNWRITTEN}",
            shape=odd,
        ),
        Mutant(
            kernel,
            "two threadgroups write one element",
            "first + r] = T",
            "(first + r) % 8] = T",
            "thread",
            _RACE,
            shape=odd,
        ),
        Mutant(
            kernel,
            "the first block's magnitude for a whole row",
            "row * BLOCKS + k / NF4_BLOCK",
            "row * BLOCKS",
            "fast",
            _WRONG,
            shape=odd,
        ),
        Mutant(
            kernel,
            "the first group's scale for all blocks",
            "matrix * SECONDS + block / NF4_SECOND",
            "matrix * SECONDS",
            "fast",
            _WRONG,
            shape=wide,
            label="grouped magnitudes",
        ),
        Mutant(
            kernel,
            "lanes take the same weights",
            "k += 32 * WORD",
            "k += 16 * WORD",
            "fast",
            _WRONG,
            shape=wide,
        ),
        Mutant(
            kernel,
            "one row of x for all",
            "x[size_t(input) * K + k + i]",
            "x[k + i]",
            "fast",
            _WRONG,
            shape=wide,
        ),
        Mutant(
            kernel,
            "the index of the matrix is ignored",
            "size_t(index[input]) : 0",
            "0 : 0",
            "fast",
            _WRONG,
            label="of a stack",
        ),
        *_NF4_WHOLE,
        *_SMALL,
    )


_NF4_WHOLE = (
    Mutant("nf4_dequantize", "the high half-byte is taken first", "word & 15", "word >> 28", "fast", _WRONG),
    Mutant(
        "nf4_dequantize",
        "the last weight of a word is left",
        "i < WORD;",
        "i < WORD - 1;",
        "fast",
        _UNWRITTEN,
    ),
    Mutant("nf4_dequantize", "written one element late", "WORD + i]", "WORD + i + 1]", "fast", _OUTSIDE),
    Mutant(
        "nf4_dequantize",
        "the word before is read",
        "weight[place]",
        "weight[int(place) - 1]",
        "fast",
        _OUTSIDE,
    ),
    Mutant(
        "nf4_dequantize",
        "groups run on over the matrices of a stack",
        "% uint(N * BLOCKS)",
        "% (1u << 30)",
        "fast",
        f"{_WRONG}|{_OUTSIDE}",
        shape=(3, 100, 128),
        label="grouped magnitudes",
    ),
    Mutant(
        "nf4_quantize",
        "the first code in the high bits",
        "code << (4 * i)",
        "code << (28 - 4 * i)",
        "fast",
        _WRONG,
    ),
    Mutant("nf4_quantize", "one value is never compared with", "c < 15", "c < 14", "fast", _WRONG),
    Mutant(
        "nf4_quantize",
        "magnitudes of blocks of 32",
        "magnitudes[place / 8]",
        "magnitudes[place / 4]",
        "fast",
        _OUTSIDE,
    ),
    Mutant(
        "nf4_quantize",
        "words are added up from nothing",
        "uint word = 0;",
        "uint word;",
        "memory",
        _UNINITIALISED,
    ),
)

_SIMDGROUP = "simdgroup_barrier(mem_flags::mem_threadgroup);"
_SMALL = (
    Mutant(
        "small_norm",
        "a row is read one element too far",
        "i < D; i += 128) {",
        "i <= D; i += 128) {",
        "fast",
        _OUTSIDE,
    ),
    Mutant("small_norm", "a sum of nothing is added", "i < 4; i++", "i < 5; i++", "address", _OVERFLOW),
    Mutant("small_norm", "the barrier before the sums are read is missing", _BARRIER, "", "thread", _RACE),
    Mutant(
        "small_norm",
        "a lane that takes no part is read",
        "sum = simd_sum(sum);",
        "if (thread_index_in_simdgroup < 16) sum += simd_shuffle_xor(sum, 16);",
        "fast",
        "for ever|does not take part",
    ),
    Mutant(
        "small_norm",
        "lanes of one simdgroup sum at different places",
        "sum = simd_sum(sum);",
        "if (t % 2 == 0) {\nsum = simd_sum(sum);\n} else {\nsum = simd_sum(sum) + 1.0f;\n}",
        "fast",
        "different places",
    ),
    Mutant("small_tiles", "no simdgroup barrier after a tile is filled", _SIMDGROUP, "", "thread", _RACE),
    Mutant(
        "small_tiles",
        "no simdgroup barrier before a tile is filled again",
        _SIMDGROUP,
        "",
        "thread",
        _RACE,
        after="accumulate(sum",
    ),
    Mutant("small_tiles", "no barrier before the parts are added up", _BARRIER, "", "thread", _RACE),
    Mutant("small_tiles", "one tile for four simdgroups", "tile[group][i]", "tile[0][i]", "thread", _RACE),
    Mutant(
        "small_tiles",
        "a tile is multiplied by half of the lanes",
        "simdgroup_multiply_accumulate(sum",
        "if (lane < 16) simdgroup_multiply_accumulate(sum",
        "fast",
        "less than 32 lanes|different places|for ever",
    ),
    Mutant(
        "small_tiles",
        "a tile is not transposed",
        "(first + i % 8) * K + k + i / 8",
        "(first + i / 8) * K + k + i % 8",
        "fast",
        _WRONG,
    ),
    Mutant(
        "small_bytes",
        "a word is read where none is aligned",
        "uint word = uint(x[place])",
        "uint word = *(const device uint*)(x + place) | uint(x[place])",
        "address",
        "misaligned",
        "uint8",
    ),
    Mutant(
        "small_bytes",
        "a shift by 32 bits",
        "word >> shifts[0]",
        "word >> (shifts[0] + 29)",
        "address",
        "shift",
        "uint8",
    ),
    Mutant(
        "small_bytes",
        "an index that overflows",
        "1 + 5 * i;",
        "1 + 5 * i + uint(int(i) * 2000000000 * 0);",
        "address",
        "overflow",
        "uint8",
    ),
    Mutant(
        "small_scan",
        "the barrier before the sums change is missing",
        _BARRIER,
        "",
        "thread",
        _RACE,
        after="before =",
    ),
    Mutant(
        "small_scan",
        "the barrier after the sums changed is missing",
        _BARRIER,
        "",
        "thread",
        _RACE,
        after="+= before",
    ),
    Mutant(
        "small_scan",
        "a barrier in a loop that some leave earlier",
        "step < D",
        "step < D - t",
        "fast",
        "barrier",
    ),
)

MUTANTS = _planted()


def page() -> str:
    """The table, as Markdown."""
    head = "| kernel | planted bug | build that must report it |\n| --- | --- | --- |"
    rows = [f"| `{each.kernel}` | {each.bug} | {each.build} |" for each in MUTANTS]
    return "\n".join([head, *rows]) + "\n"
