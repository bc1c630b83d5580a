"""Ids of the tokens that are no genes."""

N_SPECIAL = 30  # token ids before the genes: token = vocabulary index + N_SPECIAL

PAD = 0  # padding on disk

MASK_ID = 0  # a masked gene in the model

PAD_ID = 1  # padding in the model
