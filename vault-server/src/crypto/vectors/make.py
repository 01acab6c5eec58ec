"""Makes the test vectors of `crypto`, with Python's standard library alone: a second implementation.

    python3 make.py [FOLDER]

Never make the vectors of a format that is in use anew: records were sealed by them.
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys

P = 2**130 - 5


def chacha_rounds(state):
    x = list(state)

    def quarter(a, b, c, d):
        for left, right, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[left] = (x[left] + x[right]) & 0xFFFFFFFF
            value = x[turned] ^ x[left]
            x[turned] = ((value << bits) | (value >> (32 - bits))) & 0xFFFFFFFF

    for _ in range(10):
        quarter(0, 4, 8, 12), quarter(1, 5, 9, 13), quarter(2, 6, 10, 14), quarter(3, 7, 11, 15)
        quarter(0, 5, 10, 15), quarter(1, 6, 11, 12), quarter(2, 7, 8, 13), quarter(3, 4, 9, 14)
    return x


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def hchacha20(key, nonce16):
    x = chacha_rounds(CONSTANTS + struct.unpack("<8I", key) + struct.unpack("<4I", nonce16))
    return struct.pack("<8I", *x[:4], *x[12:])


def chacha20_block(key, counter, nonce12):
    state = CONSTANTS + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce12)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, chacha_rounds(state))))


def subkeys(key, nonce24):
    """XChaCha20: the key and nonce of the inner cipher, and the two halves of the Poly1305 key."""
    inner, nonce = hchacha20(key, nonce24[:16]), bytes(4) + nonce24[16:]
    block = chacha20_block(inner, 0, nonce)
    r = int.from_bytes(block[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    return inner, nonce, r, int.from_bytes(block[16:32], "little")


def crypt(inner, nonce, text):
    stream = b"".join(chacha20_block(inner, 1 + i, nonce) for i in range((len(text) + 63) // 64))
    return bytes(a ^ b for a, b in zip(text, stream))


def mac_blocks(aad, ciphertext):
    def padded(data):
        return data + bytes(-len(data) % 16)

    data = padded(aad) + padded(ciphertext) + struct.pack("<QQ", len(aad), len(ciphertext))
    return [int.from_bytes(data[i : i + 16], "little") + 2**128 for i in range(0, len(data), 16)]


def poly(blocks, r):
    total = 0
    for block in blocks:
        total = (total + block) * r % P
    return total


def seal_aead(key, nonce, aad, text):
    inner, inner_nonce, r, s = subkeys(key, nonce)
    ciphertext = crypt(inner, inner_nonce, text)
    tag = (poly(mac_blocks(aad, ciphertext), r) + s) % 2**128
    return ciphertext, tag.to_bytes(16, "little")


def hkdf(salt, ikm, info, length):
    prk, output, block = hmac.digest(salt, ikm, "sha256"), b"", b""
    while len(output) < length:
        block = hmac.digest(prk, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:length]


def aad_of(v):
    fields = [
        b"\x01\x01",
        bytes.fromhex(v["vault"]),
        v["environment"].encode(),
        v["tenant"].encode(),
        bytes.fromhex(v["token"]),
        v["class"].encode(),
        bytes.fromhex(v["subject"]),
        bytes.fromhex(v["key_id"]),
        bytes.fromhex(v["index"]),
        v["created"].to_bytes(8, "big"),
    ]
    return b"".join(struct.pack(">H", len(field)) + field for field in fields)


def record_key(v, key):
    output = hkdf(bytes.fromhex(v["salt"]), bytes.fromhex(key), b"phi-vault/record/1" + aad_of(v), 64)
    return output[:32], output[32:]


def header(v, commitment):
    return b"\x01\x01" + bytes.fromhex(v["key_id"] + v["salt"]) + commitment + bytes.fromhex(v["nonce"])


def stream(label, length):
    """Bytes that anyone can make again."""
    return hashlib.shake_256(b"phi-vault vector " + label.encode()).digest(length)


def vector(name, **given):
    v = {
        "name": name,
        "key": stream(name + " key", 32).hex(),
        "key_id": stream(name + " key id", 16).hex(),
        "key_version": 1,
        "vault": stream(name + " vault", 16).hex(),
        "environment": "prod",
        "tenant": "st-mary",
        "token": stream(name + " token", 16).hex(),
        "class": "ssn",
        "subject": "",
        "index": "",
        "created": 1_767_225_600_000_000,
        "value": "219-09-9999",
        "padded_len": 64,
        "salt": stream(name + " salt", 16).hex(),
        "nonce": stream(name + " nonce", 24).hex(),
    }
    v.update(given)
    return v


def records():
    made = [
        vector("plain"),
        vector("all fields", subject="00000001" + stream("subject", 16).hex(), index="00000002" + stream("index", 16).hex()),
        vector("subject only", subject="00000001" + stream("subject", 16).hex()),
        vector("index only", index="00000001" + stream("subject", 16).hex()),
        vector("empty value", value="", padded_len=64),
        vector("empty value, no padding", value="", padded_len=0),
        vector("no room left", value="x" * 64, padded_len=64),
        vector("not ascii", value="Jos\u00e9 \u00c1lvarez \u5c71\u7530\u592a\u90ce", **{"class": "name"}),
        vector("long", value="note " * 200, padded_len=1024, **{"class": "note"}),
        vector("longest names", environment="a" * 16, tenant="t" * 63, created=2**64 - 1, key_version=2**32 - 1, **{"class": "c" * 32}),
        vector("shortest names", environment="a", tenant="t", created=0, **{"class": "c"}),
    ]
    for v in made:
        key, commitment = record_key(v, v["key"])
        value = v["value"].encode()
        text = struct.pack(">I", len(value)) + value + bytes(v["padded_len"] - len(value))
        ciphertext, tag = seal_aead(key, bytes.fromhex(v["nonce"]), aad_of(v), text)
        v["sealed"] = (header(v, commitment) + ciphertext + tag).hex()
    return made


def collision():
    """A ciphertext and tag that XChaCha20-Poly1305 takes under two record keys.

    The tag is linear in each block, so two free blocks of ciphertext solve the two equations
    `poly(blocks, r) + s = tag` for any tag; one in some sixteen solutions fits 16 bytes a block.
    """
    v = vector("two keys")
    v["other_key"] = stream("two keys other key", 32).hex()
    aad, nonce = aad_of(v), bytes.fromhex(v["nonce"])
    keys = [record_key(v, v["key"]), record_key(v, v["other_key"])]
    (_, _, r1, s1), (_, _, r2, s2) = (subkeys(key, nonce) for key, _ in keys)
    body = bytearray(stream("two keys body", 4 + 64))
    # The whole blocks 1 and 2 of the ciphertext are free.
    body[16:48] = bytes(32)
    blocks = mac_blocks(aad, bytes(body))
    place = (len(aad) + 15) // 16 + 1
    blocks[place] = blocks[place + 1] = 0
    high, low = len(blocks) - place, len(blocks) - place - 1
    fixed1, fixed2 = poly(blocks, r1), poly(blocks, r2)
    a, b, c, d = pow(r1, high, P), pow(r1, low, P), pow(r2, high, P), pow(r2, low, P)
    inverse = pow(a * d - b * c, -1, P)
    for attempt in range(10_000):
        tag = int.from_bytes(stream(f"two keys tag {attempt}", 16), "little")
        e, f = (tag - s1) % 2**128 - fixed1, (tag - s2) % 2**128 - fixed2
        x, y = (e * d - b * f) * inverse % P, (a * f - e * c) * inverse % P
        if x >> 128 == 1 and y >> 128 == 1:
            break
    body[16:48] = (x - 2**128).to_bytes(16, "little") + (y - 2**128).to_bytes(16, "little")
    for _, _, r, s in (subkeys(key, nonce) for key, _ in keys):
        assert (poly(mac_blocks(aad, bytes(body)), r) + s) % 2**128 == tag
    end = bytes(body) + tag.to_bytes(16, "little")
    v["sealed"] = (header(v, keys[0][1]) + end).hex()
    return v


def hashed(key, *fields):
    data = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return hmac.digest(bytes.fromhex(key), data, "sha256").hex()


def index():
    key, tenant = stream("index key", 32).hex(), "st-mary"

    def made(kind, domain, length, *fields):
        mac = hashed(key, domain.encode(), tenant.encode(), *(field.encode() for field in fields))
        return {"kind": kind, "key": key, "tenant": tenant, "version": 3, "fields": fields, "mac": mac[:length]}

    return [
        made("blind-index", "phi-vault/blind-index/1", 32, "ssn", "219099999"),
        made("blind-index", "phi-vault/blind-index/1", 32, "name", "jos\u00e9 \u00e1lvarez"),
        made("subject", "phi-vault/subject/1", 32, "patient-4711"),
        made("fingerprint", "phi-vault/fingerprint/1", 64, "tokenize", "a", "", "bc"),
        made("fingerprint", "phi-vault/fingerprint/1", 64, ""),
    ]


def rows():
    key, vault, environment = stream("row key", 32).hex(), stream("row vault", 16).hex(), "dev"

    def made(kind, number, tenant, name, content, version=1):
        head = bytes([0x81]) + struct.pack(">I", version)
        fields = (b"phi-vault/row/1", head[:1], head[1:], bytes.fromhex(vault), environment.encode(), bytes([number]))
        tag = hashed(key, *fields, tenant.encode(), name, content)
        given = {"key": key, "version": version, "vault": vault, "environment": environment, "kind": kind, "tenant": tenant}
        return {**given, "name": name.hex(), "content": content.hex(), "sealed": head.hex() + tag + content.hex()}

    return [
        made("principal", 1, "", b"generation", b"\x01" + stream("row generation", 16)),
        made("grant", 5, "st-mary", stream("row grant", 16), b"\x01" + stream("row content", 300)),
        made("session", 6, "", stream("row session", 32), b"\x01"),
        made("counter", 7, "", stream("row counter", 32), b"\x01" + bytes(32), 2),
        made("honeytoken", 8, "a", b"\x00", b""),
        made("alert", 9, "st-mary", bytes(64), stream("row long", 1000)),
        made("sealing", 10, "", b"rows", b"\x01"),
    ]


def entries():
    key, vault, environment = stream("row key", 32).hex(), stream("row vault", 16).hex(), "dev"

    def made(log, sequence, entry, version=1):
        head = bytes([1]) + struct.pack(">I", version)
        fields = (b"phi-vault/entry/1", head[:1], head[1:], bytes.fromhex(vault), environment.encode())
        tag = hashed(key, *fields, struct.pack(">I", log), struct.pack(">Q", sequence), entry)
        given = {"key": key, "version": version, "vault": vault, "environment": environment, "log": log, "sequence": sequence}
        return {**given, "entry": entry.hex(), "seal": head.hex() + tag}

    return [
        made(0, 0, stream("entry", 200)),
        made(7, 4096, stream("entry", 200)),
        made(2**32 - 1, 2**53, b""),
        made(1, 2, stream("long entry", 2000), 3),
    ]


def main():
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1: this implementation against somebody else's vector.
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    _, tag = seal_aead(bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58)), bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), text)
    assert tag.hex() == "c0875924c1c7987947deafd8780acf49"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    made = {"record_v1": records(), "two_keys_v1": collision(), "index_v1": index(), "row_v1": rows(), "entry_v1": entries()}
    for name, content in made.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


main()
