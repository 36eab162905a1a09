"""The command line: words → a checked configuration, tables of choices, one file for each verb.

Nothing on its ground floor (`cli`, `arguments`, `words`) imports torch, so that help and near misses answer at once.
"""
