"""Decoding: from the files of every format to Hounsfield values and labels in the scanner's own grid."""
