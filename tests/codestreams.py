"""Compressed frames for tests: by small encoders, and some that were encoded elsewhere."""

import struct

from pydicom.pixels.encoders.base import RLELosslessEncoder

# 16 x 12 pixels, encoded with OpenJPH: grey x * x * 13 + y * 97 modulo 4,096 in 12 bits, without and with
# loss; and colours 16 x, 20 y, x * y modulo 256 without loss, by way of YBR_RCT.
HTJ2K_GREY = """
/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABCwEB/1AACAACAAAAB/9SAAwAAgABAAIEBEAB/1wACiBweHh4cHB4
/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAAAmAAB/5PAAWwAP3DTn365v7n1AAQWnCEIGp4G2ZCgAzcAwAC1IABVgOf5fJ5xBoII
ns8zEPwM/mOIsbcAsmXLlv3AMYG+tgDAAXYQAFogmXNmZmZmZsgAD17mnJmZmZkZMsCDlzlnZmZmZoYM8OD9AGdr9ZfO1+suISxqMb8AwEAg
EAgEAvoIQHv2IQHsugD/2Q==
"""
HTJ2K_LOSSY = """
/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABCwEB/1AACAACAAAAJP9SAAwAAgABAAIEBEAA/1wAESJv5mA1YDVg
eFgaWBpnv/9kABYAAU9wZW5KUEggVmVyIDAuOS4wLv+QAAoAAAAAAH4AAf+TwALYK0/mxD5ZOxb9AR+lZgLa5tUG2ZCAAbcAwAVkAFoAd+5Y
snSHpYcxArUAYIMNNtiuLpfrDk9zJNC3AMALSgBbYKEQiRQKkUihEIn05wSUkIK3AAgAAI55mMcc85hjHnPMHQAAp0wAApu+teo9AP/Z
"""
HTJ2K_COLOUR = """
/0//UQAvQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAADBwEBBwEBBwEB/1AACAACAAAABP9SAAwAAgABAQIEBEAB/1wACiBY
YGBgWFhg/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAABBAAB/5PAC0j/V9+H33cTm44YxALOAADRtwDACvCf/xevGtHs+yvc4ICe
dwDAC0gfvw9/L0j4quqq7hW/hABEtwDABPABUwASAED4mWrCdQAsTOPAAAG+tgD+4CMAwAVEAFVABOAgAPmgR/JVANfi/P3AAIG+tgAA+oBN
a+UAwAVMAFUAhmH8oCIwgnYA2Ww2+8AQgb62AMAKiAFZABMACojn08nidgBSiMwQ+nJ798nsuADw+gpSxQDACogBWwASgCyX59HSP9YA5/i9
+f77J79wQey4AP79AEQAwAqoAWgA7u7u54Cnp8J3AOc555xz/voAAHv2AAHsugD/2Q==
"""


def rle(frame):
    samples = frame.shape[2] if frame.ndim == 3 else 1
    return RLELosslessEncoder.encode(
        frame,
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=samples,
        number_of_frames=1,
        bits_allocated=frame.itemsize * 8,
        bits_stored=frame.itemsize * 8,
        pixel_representation=0,
        photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
        planar_configuration=0,
    )


def lossless_jpeg(samples, precision):
    """Encode samples as JPEG Lossless, selection value 1, with a fixed Huffman code of 5 bits (ITU-T T.81 H)."""
    bits = []
    for y, row in enumerate(samples.tolist()):
        for x, sample in enumerate(row):
            predicted = row[x - 1] if x else samples[y - 1, 0] if y else 1 << precision - 1
            difference = (sample - int(predicted) + 0x8000) % 0x10000 - 0x8000
            size = abs(difference).bit_length()
            rest = difference if difference > 0 else difference + (1 << size) - 1
            bits.append(f"{size:05b}" + (f"{rest:0{size}b}" if 0 < size < 16 else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    rows, columns = samples.shape
    frame = struct.pack(">HBHHBBBB", 11, precision, rows, columns, 1, 1, 0x11, 0)
    table = bytes((0, *(0, 0, 0, 0, 17), *[0] * 11, *range(17)))
    return b"".join(
        (
            b"\xff\xd8\xff\xc3" + frame,
            b"\xff\xc4" + struct.pack(">H", len(table) + 2) + table,
            b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0),
            scan + b"\xff\xd9",
        )
    )
