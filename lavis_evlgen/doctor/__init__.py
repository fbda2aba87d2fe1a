"""`evlgen doctor`: what of this machine and installation works, and what to do about the rest.

It is what people run where things are broken. Hence: modules here import nothing but Python's own library and their
kind; what may be missing, crash or hang is imported inside a check, and in a process of its own (parts.py).
"""
