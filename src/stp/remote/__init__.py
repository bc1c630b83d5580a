"""Stores on servers: whole files are read and written, and stores are copied as a whole."""
