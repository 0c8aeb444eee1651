"""The files of dictionaries: one module for each tool's format, and a table that recognises, reads and writes them.

`load.load` and `save.save` are the doors; `table.FORMATS` is the table. docs/reference/dictionary-formats.md shows it.
"""
