"""Portraits of trained networks: confusion matrix, decision boundary, mistakes, weights and histograms."""
