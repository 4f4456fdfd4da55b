"""Plumbing that a student may skip: processes, run folders, model folders, the fast engine."""
