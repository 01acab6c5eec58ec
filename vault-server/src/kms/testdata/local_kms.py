"""Makes local_kms.json with an implementation that is not ours: `pip install cryptography`, then run it."""
import hashlib, hmac, json, struct
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def hkdf(ikm, info, length):
    prk = hmac.new(b"\0" * 32, ikm, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\1", hashlib.sha256).digest()[:length]


def hchacha20(key, nonce):
    s = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))
    rotate = lambda v, n: ((v << n) | (v >> (32 - n))) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rotate(s[z] ^ s[x], n)

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *(s[:4] + s[12:]))


def vector(root, key, nonce, vault, environment, tenant, purpose, key_id):
    pairs = [("environment", environment), ("key", key_id), ("purpose", purpose), ("tenant", tenant), ("vault", vault)]
    aad = b"phi-vault local kms wrap" + b"\1" + struct.pack(">I", len(pairs))
    for name, value in pairs:
        for field in ("phi-vault:" + name, value):
            aad += struct.pack(">I", len(field)) + field.encode()
    wrap_key = hkdf(root, b"phi-vault local kms v1: wrap", 32)
    cipher = ChaCha20Poly1305(hchacha20(wrap_key, nonce[:16]))
    sealed = cipher.encrypt(b"\0" * 4 + nonce[16:], key, aad)
    return dict(
        root=root.hex(), key=key.hex(), nonce=nonce.hex(), vault=vault, environment=environment, tenant=tenant,
        purpose=purpose, key_id=key_id, name="local:" + hkdf(root, b"phi-vault local kms v1: id", 16).hex(),
        aad=aad.hex(), wrap=(b"\1" + nonce + sealed).hex(),
    )


vectors = [
    vector(bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 88)), "01" * 16, "qa", "st-mary", "data", "02" * 16),
    vector(b"\xff" * 32, b"\x00" * 32, b"\xaa" * 24, "c0ffee00" * 4, "prod", "-", "log-signing", "00" * 16),
    vector(b"\x80" + b"\x00" * 31, b"\x5a" * 32, b"\x00" * 24, "00" * 16, "dev", "t" * 63, "index", "ff" * 16),
    vector(b"\x01" * 32, b"\xa5" * 32, b"\x33" * 24, "0f" * 16, "demo", "-", "row-mac", "5e" * 16),
]
with open(__file__.replace(".py", ".json"), "w") as file:
    json.dump(vectors, file, indent=2)
    file.write("\n")
