"""Search for the best configuration of a grid."""
