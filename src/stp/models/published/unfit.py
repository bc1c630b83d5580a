"""Pathology encoders that are no vision transformer of timm with a class token."""

# The reason of each; `stp.models.WrappedEncoder` takes them with the code of their authors.
UNFIT = {
    "CONCH v1.5": "a transformer in code of its authors, with another way to resize positions",
    "CTransPath": "a Swin transformer without a class token, with convolutions before it",
    "GenBio-PathFM": "a transformer that reads each color channel alone",
    "KEEP": "features that are projected to the space of texts, in code on the hub",
    "MUSK": "a BEiT-3 transformer that reads images and texts",
    "PLIP": "a CLIP of transformers; its features are the projected class token",
    "RudolfV-2": "a transformer in code on the hub",
}
