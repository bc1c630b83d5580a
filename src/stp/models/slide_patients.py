"""Hashes of patients, by which a slide model knows whom it has seen."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

# 4 MB and some milliseconds per hash: slow enough that ids cannot be tried by the billion.
COST = 2**12
BLOCK_SIZE = 8
N_BYTES = 16


def new_salt() -> str:
    """Return a random salt (hexadecimal)."""
    return secrets.token_hex(16)


def hash_patients(patients: Iterable[str], salt: str) -> list[str]:
    """Return the scrypt hash (hexadecimal) of each patient, with this salt.

    Whoever can guess the ids, such as those of TCGA, can try them: hashes are not anonymous.
    """

    def hash_one(patient: str) -> str:
        key = hashlib.scrypt(
            patient.encode(), salt=bytes.fromhex(salt), n=COST, r=BLOCK_SIZE, p=1, dklen=N_BYTES
        )
        return key.hex()

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(hash_one, patients))
