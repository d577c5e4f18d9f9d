#!/usr/bin/env python3
"""Checks the vectors beside this file with arithmetic of its own.

An independent implementation of docs/spec/packet.md: hops, building, reply blocks. It needs
nothing but Python's standard library: X25519, AES-128 and ChaCha20 are written out here, the
hashes come from hashlib.

    python3 verify.py
"""
import hashlib
import hmac
import json
import pathlib
import sys

INFO = b"Dwste mou enan moxlo arketa makru kai ena upomoxlio gia na ton topothetisw kai tha kinisw thn gh."
PAYLOAD_INFO = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-INFO"
PAYLOAD_SALT = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-SALT"
VERSION = bytes([0, 1, 4])
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493


def xor(a, b):
    assert len(a) == len(b)
    return bytes(p ^ q for p, q in zip(a, b))


# X25519 (RFC 7748)

def clamp(scalar):
    n = int.from_bytes(scalar, "little")
    return (n & ~7 & (2**255 - 1)) | 2**254


def multiply(n, point):
    x1 = (int.from_bytes(point, "little") & (2**255 - 1)) % P
    x2, z2, x3, z3 = 1, 0, x1, 1
    for bit in reversed(range(255)):
        one = n >> bit & 1
        if one:
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        if one:
            x2, x3, z2, z3 = x3, x2, z3, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


# AES-128-CTR (FIPS 197), counter from zero

def gf_double(x):
    return (x << 1 ^ 0x1B) & 0xFF if x & 0x80 else x << 1


def make_sbox():
    box, p, q = [0] * 256, 1, 1
    while True:
        p ^= gf_double(p)
        for shift in (1, 2, 4):
            q ^= q << shift & 0xFF
        if q & 0x80:
            q ^= 9
        rotated = [q << n & 0xFF | q >> 8 - n for n in range(5)]
        box[p] = rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3] ^ rotated[4] ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return box


SBOX = make_sbox()


def aes_encrypt(key, block):
    words = [key[i:i + 4] for i in range(0, 16, 4)]
    rcon = 1
    for i in range(4, 44):
        word = words[-1]
        if i % 4 == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ rcon]) + word[1:]
            rcon = gf_double(rcon)
        words.append(xor(words[i - 4], word))
    keys = [b"".join(words[i:i + 4]) for i in range(0, 44, 4)]
    state = xor(block, keys[0])
    for number in range(1, 11):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 10:
            mixed = []
            for column in range(0, 16, 4):
                s = state[column:column + 4]
                mixed += [gf_double(s[i]) ^ gf_double(s[(i + 1) % 4]) ^ s[(i + 1) % 4]
                          ^ s[(i + 2) % 4] ^ s[(i + 3) % 4] for i in range(4)]
            state = mixed
        state = xor(state, keys[number])
    return state


def stream(key, length):
    blocks = (aes_encrypt(key, i.to_bytes(16, "big")) for i in range((length + 15) // 16))
    return b"".join(blocks)[:length]


# ChaCha20 (RFC 8439), counter and nonce zero

def chacha(key, data):
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start += [int.from_bytes(key[i:i + 4], "little") for i in range(0, 32, 4)] + [0, 0, 0, 0]
    quarters = [(i, i + 4, i + 8, i + 12) for i in range(4)]
    quarters += [(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12) for i in range(4)]
    out = bytearray()
    for counter in range((len(data) + 63) // 64):
        start[12] = counter
        s = list(start)
        for _ in range(10):
            for a, b, c, d in quarters:
                for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    s[x] = s[x] + s[y] & 0xFFFFFFFF
                    v = s[z] ^ s[x]
                    s[z] = (v << turn | v >> 32 - turn) & 0xFFFFFFFF
        for x, y in zip(s, start):
            out += (x + y & 0xFFFFFFFF).to_bytes(4, "little")
    return xor(out[:len(data)], data)


# Sphinx

def hkdf(secret, salt, info, length):
    prk = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    block, out, i = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
        i += 1
    return out[:length]


class Keys:
    """PKT-7"""

    def __init__(self, secret):
        assert any(secret), "PKT-6"
        e = hkdf(secret, b"", INFO, 288)
        self.stream, self.mac_key, self.seed = e[:16], e[16:32], e[32:48]
        self.blinding, self.tag = e[224:256], e[256:]

    def mac(self, beta):
        return hmac.new(self.mac_key, beta, hashlib.sha256).digest()[:16]


def wide_keys(seed):
    k = hkdf(seed, PAYLOAD_SALT, PAYLOAD_INFO, 192)
    return k[:32], k[32:96], k[96:128], k[128:]


def keyed_hash(key, data):
    return hashlib.blake2b(data, digest_size=32, key=key).digest()


def add_layer(seed, block):
    k1, k2, k3, k4 = wide_keys(seed)
    left, right = block[:32], block[32:]
    right = chacha(xor(left, k1), right)
    left = xor(left, keyed_hash(k2, right))
    right = chacha(xor(left, k3), right)
    return xor(left, keyed_hash(k4, right)) + right


def remove_layer(seed, block):
    k1, k2, k3, k4 = wide_keys(seed)
    left, right = block[:32], block[32:]
    left = xor(left, keyed_hash(k4, right))
    right = chacha(xor(left, k3), right)
    left = xor(left, keyed_hash(k2, right))
    return left + chacha(xor(left, k1), right)


def pad(message, length):
    return (bytes(16) + message + b"\1").ljust(length, b"\0")


def unpad(payload):
    assert payload[:16] == bytes(16), "PKT-17"
    body = payload[16:].rstrip(b"\0")
    assert body[-1:] == b"\1", "PKT-17"
    return body[:-1]


def peel(packet, secret_key):
    """PKT-6 to PKT-13: what a hop reads, and the packet that it leaves."""
    alpha, gamma, beta, payload = packet[:32], packet[32:48], packet[48:348], packet[348:]
    keys = Keys(multiply(clamp(secret_key), alpha))
    assert keys.mac(beta) == gamma, "PKT-8"
    blocks = xor(beta + bytes(60), stream(keys.stream, 360))
    assert blocks[1:4] == VERSION and blocks[0] in (1, 2), "PKT-9"
    payload = remove_layer(keys.seed, payload)
    seen = dict(flag=blocks[0], address=blocks[4:36], tag=keys.tag)
    if blocks[0] == 1:
        seen["delay_ns"] = int.from_bytes(blocks[36:44], "big")
        alpha = multiply(clamp(keys.blinding), alpha)
        return seen, alpha + blocks[44:60] + blocks[60:] + payload
    seen["surb_id"] = blocks[36:52]
    return seen, packet[:348] + payload


def build_header(random, route, destination, surb_id):
    """PKT-14 to PKT-16; `route` holds (address, public key, delay)."""
    x, padding = clamp(random[:32]), random[32:]
    scalar, keys = x % L, []
    for _, public, _ in route:
        keys.append(Keys(multiply(scalar, public)))
        scalar = scalar * clamp(keys[-1].blinding) % L
    filler = b""
    for k in keys[:-1]:
        filler += bytes(60)
        filler = xor(filler, stream(k.stream, 360)[-len(filler):])
    block = b"\2" + VERSION + destination + surb_id + padding
    assert len(block) + len(filler) == 300, "PKT-16"
    beta = xor(block, stream(keys[-1].stream, len(block))) + filler
    gamma = keys[-1].mac(beta)
    for i in reversed(range(len(route) - 1)):
        block = b"\1" + VERSION + route[i + 1][0] + route[i][2].to_bytes(8, "big") + gamma
        beta = xor(block + beta[:240], stream(keys[i].stream, 300))
        gamma = keys[i].mac(beta)
    return multiply(x, BASE) + gamma + beta, [k.seed for k in keys]


def recover(seeds, payload):
    """PKT-21"""
    for seed in reversed(seeds):
        payload = add_layer(seed, payload)
    return remove_layer(seeds[-1], payload)


def check_frozen(vectors):
    count = 0
    for v in vectors:
        for hop in v["hops"]:
            seen, out = peel(bytes.fromhex(hop["in"]), bytes.fromhex(hop["sk"]))
            assert hop["version"] == 260 and seen["tag"].hex() == hop["replay_tag"]
            if seen["flag"] == 1:
                assert (hop["type"], hop["next"]) == ("forward", seen["address"].hex())
                assert hop["delay_ns"] == seen["delay_ns"] and hop["out"] == out.hex()
            else:
                assert (hop["type"], hop["dest"]) == ("final", seen["address"].hex())
                assert hop["id"] == seen["surb_id"].hex() and hop["payload"] == out[348:].hex()
            count += 1
        payload = out[348:]
        if "recovery" in v:
            kept = bytes.fromhex(v["recovery"])[16:]
            payload = recover([kept[i:i + 16] for i in range(0, len(kept), 16)], payload)
        assert unpad(payload).hex() == v["plaintext"]
    return count


def check_full(vectors):
    count = 0
    for v in vectors:
        hops, message = v["hops"], bytes.fromhex(v["message"])
        random, surb_id = bytes.fromhex(v["random"]), bytes.fromhex(v["surb_id"])
        destination = bytes.fromhex(v["destination"])
        if v["kind"] == "surb260":
            assert random[:16] == surb_id and any(surb_id), "PKT-20"
            random = random[16:]
        route = [(bytes.fromhex(h["address"]),
                  multiply(clamp(bytes.fromhex(h["secret_key"])), BASE), h["delay_ns"]) for h in hops]
        header, seeds = build_header(random, route, destination, surb_id)
        layers = seeds
        if v["kind"] == "surb260":
            surb = header + route[0][0] + seeds[-1]
            assert len(surb) == 396 and surb.hex() == v["surb"], "PKT-18"
            assert (surb_id + b"".join(seeds)).ljust(96, b"\0").hex() == v["surb_secret"], "PKT-21"
            layers = seeds[-1:]
        payload = pad(message, 2048)
        for seed in reversed(layers):
            payload = add_layer(seed, payload)
        packet = header + payload
        assert len(packet) == 2396, "PKT-1"
        for i, hop in enumerate(hops):
            assert packet.hex() == hop["packet"]
            seen, packet = peel(packet, bytes.fromhex(hop["secret_key"]))
            assert seen["tag"].hex() == hop["tag"]
            if i + 1 < len(hops):
                assert seen["address"] == route[i + 1][0] and seen["delay_ns"] == hop["delay_ns"]
            else:
                assert seen["address"] == destination and seen["surb_id"] == surb_id
            count += 1
        assert packet[348:].hex() == v["payload"]
        payload = packet[348:]
        if v["kind"] == "surb260":
            payload = recover(seeds, payload)
        assert unpad(payload) == message
    return count


def main():
    here = pathlib.Path(__file__).parent
    for name, check in (("sphinx080_unwrap.json", check_frozen), ("full_size.json", check_full)):
        vectors = json.loads((here / name).read_text())
        print(f"{name}: {len(vectors)} packets, {check(vectors)} hops verified")


if __name__ == "__main__":
    sys.exit(main())
