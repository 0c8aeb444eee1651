"""The script of a widget, as a lab would hold it."""
