"""What verbs say of the data they were given: the logger "stp", on standard error, which setLevel("WARNING") hushes."""

import logging

logger = logging.getLogger("stp")
if not logger.handlers:
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
