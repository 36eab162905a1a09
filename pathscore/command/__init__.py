"""The command line: words → a checked configuration, tables of choices, one file for each verb.

`cli`, `arguments` and `words` do not import torch, so that help and errors about misspelt words appear at once.
"""
