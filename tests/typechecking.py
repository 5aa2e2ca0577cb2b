"""The type checker of the tests: an int passes for a float, as PEP 484 and every caller have it."""

from beartype import BeartypeConf, beartype

strict = beartype(conf=BeartypeConf(is_pep484_tower=True))
