"""Portraits: pictures of a trained network, from file to terminal."""
