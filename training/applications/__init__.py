"""Applications: a model used on one's own CT, in the CT's own grid."""
