"""Closed forms of per-image gradient norms, one module a family of layers; the table says which layer has one."""
