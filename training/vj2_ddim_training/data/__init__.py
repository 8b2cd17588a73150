"""Data: read the field's formats, make gestures, say what a data set holds."""
