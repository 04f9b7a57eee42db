"""What the step is given of a model: the places of its sizes and addresses in the tables."""

from __future__ import annotations

from enum import IntEnum

from sftdemo.decode.simd import BYTE_DOTS

BY_INPUT_F32, BY_INPUT_BF16, BY_OUTPUT_F32, BY_OUTPUT_BF16, FOUR_BITS, EIGHT_BITS, NF4 = range(7)
PACKED_KINDS = (FOUR_BITS, EIGHT_BITS, NF4)
BY_BLOCKS = (
    (FOUR_BITS, EIGHT_BITS) if BYTE_DOTS else (FOUR_BITS,)
)  # whose products ask for what stands of blocks of inputs
QKV, ATTENTION, OUTPUT, GATE_UP, DOWN = range(5)  # the phases of a layer; the head is the last phase of all
PHASES = 5
Q, K, V, O, GATE, UP, DOWN_PROJ = range(7)  # noqa: E741 (as in the literature)


class Dim(IntEnum):
    """Places in the array of sizes and addresses."""

    ROWS = 0
    LAYERS = 1
    HIDDEN = 2
    INNER = 3  # of the feed-forward
    HEADS = 4
    KEY_HEADS = 5
    WIDTH = 6  # of a head
    ROTARY = 7  # numbers of a head that are rotated
    ACTIVATION = 8
    ADAPTERS = 9
    BFLOAT16_CACHE = 10
    EMBEDDED = 11  # [rows, hidden]
    RESIDUAL = 12  # two of [rows, hidden]
    QKV_OUT = 13
    QKV_WIDTH = 14  # numbers a row, what adapters compute first included
    ATTENTION_OUT = 15
    OUTPUT_OUT = 16
    OUTPUT_WIDTH = 17
    GATE_UP_OUT = 18
    GATE_UP_WIDTH = 19
    DOWN_OUT = 20
    DOWN_WIDTH = 21
    LOGITS = 22
    LOGITS_WIDTH = 23
    SCRATCH = 24
    SCRATCH_BYTES = 25  # of a thread
    INPUTS = 26  # numbers of a row's inputs in the scratch
    COLUMNS = 27  # of the cache, the new token's included
    AHEAD = 28  # tokens of the common prefix
    MASK = 29  # bytes [rows, columns]
    ADAPTER = 30  # int64 [rows]: which adapter answers a row, or -1
    FINAL_NORM = 31
    BLOCKS = 32  # whether products ask for what stands of each block of inputs
    SHARED = 33  # where inputs stand that are prepared once for all threads; 0 where each prepares its own
    SIZE = 34


class Layer(IntEnum):
    """Columns of the table of layers; 0 where there is none."""

    INPUT_NORM = 0
    AFTER_ATTENTION_NORM = 1
    FEED_FORWARD_NORM = 2
    AFTER_FEED_FORWARD_NORM = 3
    Q_NORM = 4
    K_NORM = 5
    KEYS = 6
    VALUES = 7
    ROW_BYTES = 8  # from one row of the cache to the next
    HEAD_BYTES = 9
    COS = 10  # float32 [rows, rotary]
    SIN = 11
    FIRST = 12  # int64 [rows]: the first column that the window lets see, the common prefix counted
    SIZE = 13


class Segment(IntEnum):
    """Columns of the table of weights."""

    KIND = 0
    WEIGHTS = 1
    INPUTS = 2
    STRIDE = 3
    OUTPUTS = 4
    AT = 5  # where its outputs begin in a row
    BIAS = 6
    TABLE = 9  # where NF4's 16 numbers stand
    SCALE = 10  # where a factor of each output stands, or 0
    TILES = 7  # of a chunk
    CHUNKS = 8
    ADAPTED = 11  # whether only rows with an adapter need it
    SIZE = 12


class Adapter(IntEnum):
    """Columns of the table of adapters."""

    INNER = 0  # where xA stands in the row
    RANK = 1
    B = 2
    STRIDE = 3
    FACTOR = 4
    SUMMAND = 5
    SIZE = 6
